"""A file of captured views while it is made: it grows by whole slices, and after a stop or a kill it goes on."""

import errno
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from training.durable import write_atomically
from training.model.preprocess import INPUT_PX
from training.views_story import STORY_FILE, VIEWS_FILE, ViewsError, ViewsRecipe, ViewsStory

PROGRESS_FILE = "views-so-far.json"
_GB = 1e9


class Progress(BaseModel):
    """How many slices have their views on the disk, by which recipe, and how many views did not come the whole way."""

    model_config = ConfigDict(frozen=True)
    recipe_hash: str
    done: int = 0
    true_outlines: int = 0
    digital: int = 0


class GrowingViews:
    """The views of slices with these ids, in their order; `recipe_hash` stands for all that decides the pixels."""

    def __init__(self, folder: Path, recipe: ViewsRecipe, slice_ids: tuple[str, ...], recipe_hash: str) -> None:
        """Remember what is to be made."""
        self._folder, self._recipe, self._ids = folder, recipe, slice_ids
        self._header = _header((len(slice_ids), len(recipe.severities), INPUT_PX, INPUT_PX))
        self._slice_bytes = len(recipe.severities) * INPUT_PX * INPUT_PX
        self.progress = Progress(recipe_hash=recipe_hash)

    @property
    def path(self) -> Path:
        return self._folder / VIEWS_FILE

    @property
    def is_finished(self) -> bool:
        """Tell whether the story is written."""
        return (self._folder / STORY_FILE).exists() and self.progress.done == len(self._ids)

    def open(self) -> None:
        """Find what is done already; raises `ViewsError` for other views in the folder, and `OSError` on a full disk.

        What lies behind the last slice that was counted is debris of a kill, and is written over.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        known = self._known()
        if known is not None and self._size() >= self._end(known.done):
            self.progress = known
        if self.progress.done < len(self._ids):
            (self._folder / STORY_FILE).unlink(missing_ok=True)
        needed = self._end(len(self._ids)) - self._size()
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            fault = f"{needed / _GB:.1f} GB are needed for all views, {free / _GB:.1f} GB are free"
            raise OSError(errno.ENOSPC, fault, str(self.path))

    def add(self, views: NDArray[np.uint8], true_outlines: int, digital: int) -> None:
        """Keep the views uint8 [m, k, 256, 256] of the next slices; they are on the disk before they are counted."""
        before = self.progress
        try:
            with self.path.open("r+b" if self.path.exists() else "w+b") as file:
                file.write(self._header)
                file.truncate(self._end(before.done))
                file.seek(self._end(before.done))
                file.write(views.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:  # a full disk does not say by itself which file it was
            raise OSError(error.errno, f"{error.strerror}; what is done stays", str(self.path)) from error
        self.progress = Progress(
            recipe_hash=before.recipe_hash,
            done=before.done + len(views),
            true_outlines=before.true_outlines + true_outlines,
            digital=before.digital + digital,
        )
        write_atomically(self._folder / PROGRESS_FILE, self.progress.model_dump_json().encode())

    def finish(self) -> ViewsStory:
        """Write the story last: views with a story are complete."""
        story = ViewsStory(
            **self._recipe.model_dump(),
            n_slices=len(self._ids),
            n_views=len(self._ids) * len(self._recipe.severities),
            true_outlines=self.progress.true_outlines,
            digital=self.progress.digital,
            slice_ids=self._ids,
        )
        write_atomically(self._folder / STORY_FILE, json.dumps(story.model_dump(mode="json"), indent=1).encode())
        return story

    def _known(self) -> Progress | None:
        try:
            known = Progress.model_validate_json((self._folder / PROGRESS_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise ViewsError(f"{self._folder / PROGRESS_FILE} is damaged: remove {self._folder}") from error
        if known.recipe_hash != self.progress.recipe_hash:
            raise ViewsError(
                f"{self._folder} holds views of other slices, severities or seed, or made by other code: "
                "use another folder"
            )
        return known

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _end(self, slices: int) -> int:
        return len(self._header) + slices * self._slice_bytes


def _header(shape: tuple[int, ...]) -> bytes:
    """Return the head of a .npy file of bytes [shape]."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"shape": shape, "fortran_order": False, "descr": "|u1"})
    return head.getvalue()
