"""The slices of a benchmark: listed once, decoded when they are shown, and read as digital pictures beforehand."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protocol.labels import LABELS
from training.data.labelled import UnreadableSliceError, prepared, read_file
from training.data.phantom import SITES, Cohort, write_phantoms
from training.data.slices import LabelledSlice
from training.judging.predictions import patient_key, slice_id
from training.model.decode import ImageError, decode_image
from training.model.reader import OnnxReader

Logits = NDArray[np.float32]

PHANTOM_SPLIT = "test"
PHANTOM_SEED = 4_000_000
"""Added to the seed of phantoms that are drawn for a benchmark: no training has ever seen them."""
_PHANTOM_SOURCE = "phantom-"


class BenchStoppedError(RuntimeError):
    """The stop event was set; what was measured is kept, and the same command goes on."""


@dataclass(frozen=True)
class Networks:
    """The network that is served, and the one trained without the simulator, for the paper's path; each may be None."""

    served: OnnxReader | None
    plain: OnnxReader | None


@dataclass(frozen=True)
class BenchSlices:
    """Slices of a folder with ids, labels [n] (index into LABELS), patients' keys, sources, and digital logits [n, 3].

    The logits of a network that there is not are None.
    """

    folder: Path
    rows: tuple[LabelledSlice, ...]
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    patients: tuple[str, ...]
    sources: tuple[str, ...]
    logits: Logits | None
    plain_logits: Logits | None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def are_phantoms(self) -> bool:
        """Tell whether no patient is among them, so that they may be shown in documents."""
        return is_of_phantoms(self.sources)

    def picture(self, at: int) -> NDArray[np.uint8]:
        """Decode a slice as a viewer shows it, uint8 [h, w]; raises `UnreadableSliceError`."""
        return shown_picture(self.folder, self.rows[at])

    def sha256(self) -> str:
        """Return the hash of what is shown, in this order."""
        lines = (f"{one},{label},{key}" for one, label, key in zip(self.ids, self.labels, self.patients, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def is_of_phantoms(sources: Iterable[str]) -> bool:
    """Tell whether all sources are those of phantoms."""
    return all(source.startswith(_PHANTOM_SOURCE) for source in sources)


def read_slices(
    folder: Path,
    rows: Sequence[LabelledSlice],
    networks: Networks,
    stop: threading.Event,
    on_slice: Callable[[int, int], None],
) -> BenchSlices:
    """Read each slice as a digital picture, one in memory at a time.

    Raises `UnreadableSliceError` and `BenchStoppedError`; `on_slice` hears how many of how many are done.
    """
    ids: list[str] = []
    logits: list[Logits] = []
    plain: list[Logits] = []
    for done, row in enumerate(rows, start=1):
        if stop.is_set():
            raise BenchStoppedError("stopped while reading the digital slices: nothing was measured yet")
        pixels = prepared(read_file(folder, row), row)
        ids.append(slice_id(pixels))
        for network, kept in ((networks.served, logits), (networks.plain, plain)):
            if network is not None:
                kept.append(read_logits(network, pixels))
        on_slice(done, len(rows))
    return BenchSlices(
        folder,
        tuple(rows),
        tuple(ids),
        np.array([LABELS.index(row.label) for row in rows], np.int64),
        tuple(patient_key(row.patient_id) for row in rows),
        tuple(row.source for row in rows),
        np.stack(logits) if logits else None,
        np.stack(plain) if plain else None,
    )


def shown_picture(folder: Path, row: LabelledSlice) -> NDArray[np.uint8]:
    """Decode a row's file as a viewer shows it, uint8 [h, w]; raises `UnreadableSliceError`."""
    try:
        return decode_image(read_file(folder, row))
    except ImageError as error:
        raise UnreadableSliceError(row.file, str(error)) from error


def read_logits(network: OnnxReader, pixels: NDArray[np.uint8]) -> Logits:
    """Return a network's logits [3] of a prepared slice uint8 [256, 256], in the order of LABELS."""
    order = [network.calibration.labels.index(label) for label in LABELS]
    return np.asarray(network.logits(pixels[None])[0][order], np.float32)


def write_bench_phantoms(folder: Path, count: int, seed: int, on_slice: Callable[[int, int], None]) -> Path:
    """Write at least so many phantom slices, each of another patient, as the test split of both sites."""
    each = -(-count // (len(SITES) * len(LABELS)))
    cohorts = [Cohort(site, PHANTOM_SPLIT, each, 1) for site in sorted(SITES)]
    write_phantoms(folder, cohorts, PHANTOM_SEED + seed, on_slice)
    return folder
