"""What `bench update` measured, as JSON; a part that was not asked for is null."""

from pydantic import BaseModel, ConfigDict, JsonValue, computed_field

from sliceloop.update_bench.aims import (
    Aim,
    of_behaviour,
    of_bytes,
    of_fine_tunings,
    of_fleet,
    of_gap,
    of_line,
    of_swaps,
)
from sliceloop.update_bench.behaviour_result import BehaviourResult
from sliceloop.update_bench.bytes_moved import UpdateBytes
from sliceloop.update_bench.cut_line import CutLineResult
from sliceloop.update_bench.fifty import FiftyResult
from sliceloop.update_bench.fine_tunings import FineTunings
from sliceloop.update_bench.swaps import SwapsResult
from sliceloop.update_bench.timed import TimedUpdate


class UpdateResult(BaseModel):
    """All parts, where they were measured, and which aims were met."""

    model_config = ConfigDict(frozen=True)
    architecture: str
    seed: int
    machine: dict[str, JsonValue]
    versions: dict[str, str]
    commit: str | None
    bytes: UpdateBytes | None = None
    timed: tuple[TimedUpdate, ...] = ()
    fine_tunings: FineTunings | None = None
    behaviour: BehaviourResult | None = None
    gap: SwapsResult | None = None
    """Few swaps of the architecture."""
    swaps: SwapsResult | None = None
    """Many of a small network."""
    swaps_architecture: str = ""
    line: CutLineResult | None = None
    fleet: FiftyResult | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def aims(self) -> tuple[Aim, ...]:
        """Return each figure that has an aim, beside it."""
        found: list[Aim] = []
        if self.bytes is not None:
            found += of_bytes(self.bytes)
        if self.fine_tunings is not None:
            found += of_fine_tunings(self.fine_tunings)
        if self.line is not None:
            found += of_line(self.line)
        if self.gap is not None:
            found += of_gap(self.gap, self.architecture)
        if self.swaps is not None:
            found += of_swaps(self.swaps, self.swaps_architecture)
        if self.fleet is not None:
            found += of_fleet(self.fleet)
        if self.behaviour is not None:
            found += of_behaviour(self.behaviour)
        return tuple(found)
