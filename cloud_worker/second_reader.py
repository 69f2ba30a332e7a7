"""The second reader: a larger network with weights of its own, which reads every stored slice again."""

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protocol.chunks import sha256_of
from protocol.manifest import MODEL_FILE
from protocol.messages import ModelRef, NetworkReading
from training.bundle import BundleError, read_bundle
from training.model.reader import UnreadableNetworkError


class SecondReader:
    """Reads prepared slices; loading it raises `BundleError`."""

    def __init__(self, folder: Path, name: str, *, threads: int = 1) -> None:
        """Load the network from a folder that `sliceloop train` wrote."""
        bundle = read_bundle(folder)
        try:
            self._reader = bundle.reader(threads=threads)
        except UnreadableNetworkError as error:
            raise BundleError(f"{folder / MODEL_FILE}: {error}; train one with `sliceloop train`") from error
        self.ref = ModelRef(name=name, version=1, sha256=sha256_of(bundle.model))

    def read(self, pixels: NDArray[np.uint8]) -> NetworkReading:
        """Read one prepared slice uint8 [256, 256]."""
        started_s = time.perf_counter()
        reading = self._reader.read(pixels)
        return NetworkReading(
            label=reading.label,
            uncertain=reading.uncertain,
            probabilities=reading.probabilities,
            model=self.ref,
            latency_ms=(time.perf_counter() - started_s) * 1000,
        )
