"""A real edge that reads gets a full, a head-only, a fine-tuned and an int8 release: bytes fetched, and seconds."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sliceloop.update_bench.edge_ground import IN_USE, PROVEN, EdgeGround, edge_ground
from sliceloop.update_bench.update_pairs import BASE, HEAD, INT8, INT8_BASE, SGD

FULL, HEAD_ONLY, BY_DELTA, QUANTIZED = "full", "head only", "sgd by delta", "int8"
COURSE = ((FULL, BASE), (HEAD_ONLY, HEAD), (BY_DELTA, SGD), (QUANTIZED, INT8))
"""Each is an update of the one before; the first one's predecessor is int8, which shares nothing with it."""


class TimedUpdate(BaseModel):
    """One update on its way, from the assignment on."""

    model_config = ConfigDict(frozen=True)
    update: str
    model_bytes: int
    chunk_bytes: int
    """That the edge asked for, pieces of index with them."""
    swap_s: float
    """Until the network read: delivery, trial, and a few slices in shadow."""
    proven_s: float
    """Until the end of the probation, of a few slices too."""


def time_updates(
    networks: Mapping[str, bytes], folder: Path, seed: int, told: Callable[[str], None] = lambda _: None
) -> tuple[TimedUpdate, ...]:
    """Run a broker and an edge, and update it; raises `StuckError`."""
    with edge_ground(folder, seed) as ground:
        ground.update(ground.cloud.release(networks[INT8_BASE], 1))
        timed, before = [], networks[INT8_BASE]
        for version, (update, name) in enumerate(COURSE, start=2):
            told(f"an edge gets an update: {update}")
            bases = [before] if update == BY_DELTA else []
            timed.append(_timed(ground, update, networks[name], version, bases))
            before = networks[name]
    return tuple(timed)


def _timed(ground: EdgeGround, update: str, network: bytes, version: int, bases: list[bytes]) -> TimedUpdate:
    made = ground.cloud.release(network, version, bases)
    served = ground.cloud.chunk_bytes
    ground.update(made)
    return TimedUpdate(
        update=update,
        model_bytes=len(network),
        chunk_bytes=ground.cloud.chunk_bytes - served,
        swap_s=ground.seconds_to(version, *IN_USE),
        proven_s=ground.seconds_to(version, *PROVEN),
    )
