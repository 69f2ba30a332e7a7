"""What made the figures: slices, networks, plan, code and machine, as it stands in capture.json."""

from sliceloop.capture_bench.cases import CasePlan
from sliceloop.capture_bench.figures import CaptureFigures, Frozen, Share, Target
from training.judging.record import Origin
from training.judging.unseen import LeakMark

SIMULATED = "SIMULATED: frames of a webcam that does not exist; they say nothing of a real one."
FILMED = "Filmed with the webcam that its user names; one camera, one screen, one room."


class NetworkFacts(Frozen):
    """A network of the benchmark."""

    name: str
    sha256: str
    leak: LeakMark


class DataFacts(Frozen):
    """The slices of the benchmark."""

    split: str
    n_slices: int
    n_patients: int
    sources: tuple[str, ...]
    slices_sha256: str
    are_phantoms: bool


class RecordingFacts(Frozen):
    """What a recording of a page held."""

    trigger: str
    slides_taken: Share
    """Slides of which a picture with readable tags was taken."""
    slides_read: Share
    """Slides of which a picture was accepted."""
    others_accepted: Share
    """Of the pictures without readable tags, those that were accepted."""


class CaptureRecord(Frozen):
    """capture.json."""

    what: str
    """Whether it is simulated, in words."""
    data: DataFacts
    network: NetworkFacts | None
    plain_network: NetworkFacts | None
    plan: CasePlan | None
    feed: str
    family: str | None
    calibrated: bool
    recording: RecordingFacts | None = None
    figures: CaptureFigures
    targets: tuple[Target, ...]
    origin: Origin

    @property
    def marks(self) -> tuple[str, ...]:
        """Return the lines that stand above every output."""
        leaks = [one.leak for one in (self.network, self.plain_network) if one is not None and one.leak.leaked]
        return (self.what, *(leak.sentence() for leak in leaks))
