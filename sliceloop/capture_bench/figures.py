"""The figures of the capture benchmark, as they stand in capture.json."""

from pydantic import BaseModel, ConfigDict

from training.evaluate import Estimate


class Frozen(BaseModel):
    """A figure, or several; unknown fields of newer versions are passed over."""

    model_config = ConfigDict(frozen=True)


class Share(Frozen):
    """So many of so many."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """Return it as 0..1, None of nothing."""
        return self.count / self.of if self.of else None

    def __str__(self) -> str:
        return "-" if self.value is None else f"{100 * self.value:.1f} % ({self.count} of {self.of})"


class Localisation(Frozen):
    """Intersection over union of found and true outline; a frame where none was found counts as 0.

    Frames whose true outline is not known (filmed, a tag not read) do not count; of none there is no mean.
    """

    n: int
    mean: float | None
    p5: float | None
    at_least_095: Share
    found: Share
    accepted_wrong: Share
    """Of the accepted frames those with less than 0.9."""


class Abstention(Frozen):
    """Frames that are not read; one may have several reasons."""

    refused: Share
    by_reason: dict[str, int]


class Reading(Frozen):
    """Balanced accuracy of digital slices and of their captures, by slice."""

    digital: Estimate | None
    """Of all frames' slices."""
    captured: Estimate | None
    """Of the frames that were not refused."""
    loss: Estimate | None
    """Digital minus captured, both on the frames that were not refused."""
    refused_wrong: Estimate | None
    """Of all frames, a refused one counting as wrong."""
    agreement: Share
    """Frames with the digital slice's answer, of those that were not refused."""


class Variant(Frozen):
    """Another path on the same frames."""

    localisation: Localisation
    abstention: Abstention
    reading: Reading | None


class Paper(Frozen):
    """The paper's path: its crop, no photometry, a network trained without the simulator."""

    localisation: Localisation
    reading: Reading
    recovered: Estimate | None
    """Share of its loss that ours does not have, each against its own network's digital figure; None without a loss."""
    recovered_refused_wrong: Estimate | None
    """The same with our refusals counted as wrong."""


class Group(Frozen):
    """The frames of one source, or of one page."""

    name: str
    localisation: Localisation
    abstention: Abstention
    reading: Reading | None


class SeverityFigures(Frozen):
    """All slices at one severity; None for a recording, which has none that is known."""

    name: str
    severity: float | None
    n_frames: int
    n_slices: int
    n_patients: int
    localisation: Localisation
    abstention: Abstention
    reading: Reading | None
    paper: Paper | None
    crossed: dict[str, Reading]
    """Half of the paper's path and half of ours."""
    without: dict[str, Variant]
    """Ours with one stage off."""
    by_source: tuple[Group, ...]
    by_page: tuple[Group, ...]


class EmptyFigures(Frozen):
    """Frames without a slice."""

    scene: str
    severity: float
    accepted: Share


class FactorFigures(Frozen):
    """Slices with one factor alone."""

    factor: str
    severity: float
    localisation: Localisation
    abstention: Abstention
    agreement: Share | None


class StageTime(Frozen):
    """Milliseconds of one stage on one core."""

    n: int
    median_ms: float
    p95_ms: float


class Times(Frozen):
    """What the stages of accepted frames take."""

    stages: dict[str, StageTime]
    geometry: StageTime | None
    """Locate, rectify and photometry together."""
    ratio_median: float | None
    """Of that to decoding the same frame's JPEG, in the same run."""
    ratio_p95: float | None


class Target(Frozen):
    """What the issue asks for, and whether it is reached; None where it was not measured."""

    name: str
    bound: str
    measured: float | None
    reached: bool | None


class CaptureFigures(Frozen):
    """Everything that a run measured."""

    simulated: bool
    severities: tuple[SeverityFigures, ...]
    empty: tuple[EmptyFigures, ...]
    factors: tuple[FactorFigures, ...]
    times: Times
