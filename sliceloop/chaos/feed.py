"""Give the edges PNG files that nobody has seen: phantoms with faint noise, the same bytes for the same seed."""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from sliceloop.demo.stage import EDGES, inbox
from training.data.labelled import LABELS_FILE
from training.data.slices import LabelledSlice

NOISE = 2
"""Grey values, up and down."""


@dataclass
class Feed:
    """One edge's share of the slices, and what it was given: the SHA-256 of each file, in order."""

    edge: str
    rows: Sequence[LabelledSlice]
    share: int
    given: list[str] = field(default_factory=list)
    next_due_s: float = 0.0


class Stream:
    """Gives slice after slice, to the edges in turn."""

    def __init__(self, folder: Path, rows: Sequence[Sequence[LabelledSlice]], slices: int, seed: int) -> None:
        """Remember what each edge gets."""
        self._folder, self._seed = folder, seed
        shares = [slices // len(EDGES) + (number < slices % len(EDGES)) for number in range(len(EDGES))]
        self.feeds = [Feed(edge, each, share) for edge, each, share in zip(EDGES, rows, shares, strict=True)]
        self._shown: dict[str, cv2.typing.MatLike] = {}

    @property
    def given(self) -> int:
        """Count the files given."""
        return sum(len(feed.given) for feed in self.feeds)

    @property
    def finished(self) -> bool:
        """Tell whether all was given."""
        return all(len(feed.given) == feed.share for feed in self.feeds)

    def name_patients(self) -> None:
        """Write the edges' labels.csv: whose slice each file will be."""
        for feed in self.feeds:
            inbox(self._folder, feed.edge).mkdir(parents=True, exist_ok=True)
            with (inbox(self._folder, feed.edge) / LABELS_FILE).open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["file", "patient_id", "source"])
                rows = (feed.rows[number % len(feed.rows)] for number in range(feed.share))
                writer.writerows([f"{n:06d}.png", row.patient_id, row.source] for n, row in enumerate(rows))

    def step(self, now_s: float, interval_s: float) -> None:
        """Give each edge at most one file, when its time has come."""
        for feed in self.feeds:
            if len(feed.given) < feed.share and now_s >= feed.next_due_s:
                self._give(feed)
                feed.next_due_s = now_s + interval_s

    def _give(self, feed: Feed) -> None:
        number = len(feed.given)
        data = self._noisy(feed.rows[number % len(feed.rows)].file, (self._seed, EDGES.index(feed.edge), number))
        target = inbox(self._folder, feed.edge) / f"{number:06d}.png"
        temporary = target.with_suffix(".part")
        temporary.write_bytes(data)
        temporary.replace(target)  # the edge sees it whole or not at all
        feed.given.append(hashlib.sha256(data).hexdigest())

    def _noisy(self, path: str, seed: Sequence[int]) -> bytes:
        if path not in self._shown:
            pixels = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
            assert pixels is not None, path
            self._shown[path] = pixels
        pixels = self._shown[path]
        noise = np.random.default_rng(seed).integers(-NOISE, NOISE + 1, pixels.shape)
        encoded, png = cv2.imencode(".png", np.clip(pixels + noise, 0, 255).astype(np.uint8))
        assert encoded
        return bytes(png)
