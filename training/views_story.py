"""What is told of simulated captured views: how they were made, of which slices; without torch."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from training.data.slices import SliceSet
from training.judging.predictions import slice_id

VIEWS_FILE, STORY_FILE = "views.npy", "views.json"
MAKE_THEM = "make the views with `sliceloop capture-views`, which goes on where it was stopped"


class ViewsError(ValueError):
    """Captured views that cannot be used; the message says why, and what to do."""


class ViewsRecipe(BaseModel):
    """How views were made: what decides their pixels besides the slices and the code."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    simulated: Literal[True] = True
    split: str
    family: str
    severities: tuple[float, ...]
    """Of each view of a slice, in their order."""
    seed: int


class ViewsMade(ViewsRecipe):
    """What became of a recipe: how many views there are, and how many did not come the whole way."""

    n_slices: int
    n_views: int
    true_outlines: int
    """Of these the outline was not found, or was wrong, and the true one was taken."""
    digital: int
    """Of these nothing could be read even so: the digital slice stands in."""


class ViewsStory(ViewsMade):
    """All that is told of views; ids of the slices in the file's order, see `slice_id`."""

    slice_ids: tuple[str, ...]

    def made(self) -> ViewsMade:
        """Return it without the ids, for a report."""
        return ViewsMade.model_validate(self.model_dump())


def read_story(folder: Path) -> ViewsStory:
    """Return the story of finished views; raises `ViewsError`."""
    try:
        return ViewsStory.model_validate_json((folder / STORY_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        fault = error.strerror if isinstance(error, OSError) else f"{error.error_count()} faults in {STORY_FILE}"
        raise ViewsError(f"{folder} holds no finished views ({fault}): {MAKE_THEM}") from error


def ids_of(slices: SliceSet) -> tuple[str, ...]:
    """Return the slices' ids, in their order; one slice in memory at a time."""
    return tuple(slice_id(slices.pixels[at : at + 1][0]) for at in range(len(slices)))
