"""What `bench pipeline` measured, as JSON."""

from pydantic import BaseModel, ConfigDict, JsonValue

from sliceloop.fleet.report import FleetReport, Latency
from sliceloop.pipeline.floors import Floors


class Point(BaseModel):
    """One number of edges: the floors, the pipeline as fast as it goes, and its latency at half of that."""

    model_config = ConfigDict(frozen=True)

    edges: int
    workers: int
    floors: Floors
    full: FleetReport
    half: FleetReport
    cpu_ms: dict[str, float]
    """Of each part, for a slice at full speed; `edges` are all in one process."""

    @property
    def share(self) -> float:
        """Return the pipeline's slices a second as a share of the slowest floor's payloads."""
        return self.full.slices_per_s / self.floors.slowest_per_s


class Moment(BaseModel):
    """How it stood at one time of an outage's course."""

    model_config = ConfigDict(frozen=True)

    at_s: float
    waiting: int
    receipted: int


class Outage(BaseModel):
    """A stream whose line was cut: how fast the backlog went, and what new slices felt of it."""

    model_config = ConfigDict(frozen=True)

    edges: int
    cut_s: float
    stream_per_s: float
    backlog: int
    back_after_s: float
    """From mending the line to the first receipt; what is captured meanwhile counts as backlog."""
    catch_up_s: float
    catch_up_per_s: float
    before: Latency | None
    during_catch_up: Latency | None
    after: Latency | None
    refused: int
    """Not captured, since an outbox was full."""
    unreceipted: int
    """At the end: 0 unless something was lost, or the limit passed."""
    course: tuple[Moment, ...]


class Soak(BaseModel):
    """Memory over many slices, in bytes of VmRSS at the first and the last tenth (medians)."""

    model_config = ConfigDict(frozen=True)

    slices: int
    seconds: float
    worker_bytes: tuple[int, int]
    edge_bytes: tuple[int, int]


class PipelineResult(BaseModel):
    """The whole."""

    model_config = ConfigDict(frozen=True)

    machine: dict[str, JsonValue]
    versions: dict[str, str]
    commit: str | None
    broker: str
    ledger: str
    payload_bytes: int
    with_frames: bool
    points: tuple[Point, ...] = ()
    outage: Outage | None = None
    soak: Soak | None = None
