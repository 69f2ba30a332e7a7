"""Rendered frames come through the real camera source, each once and in their order."""

import cv2
import numpy as np
import pytest

from edge_agent.refusal import Refusal
from sliceloop.capture_bench.feed import FeedKind, open_feed
from sliceloop.capture_bench.look import decoded


def frames(count: int, seed: int) -> list[np.ndarray]:
    """Draw frames that resemble each other: the same noise, and a square that wanders."""
    noise = np.random.default_rng(seed).integers(60, 120, (240, 320, 3))
    drawn = []
    for number in range(count):
        frame = cv2.blur(noise.astype(np.uint8), (5, 5))
        frame[40:160, 20 + 20 * number : 120 + 20 * number] = 200
        drawn.append(frame)
    return drawn


@pytest.mark.parametrize("kind", ["file", "http"])
def test_frames_arrive_in_their_order(kind: FeedKind):
    """Two parts of frames come through, every frame as itself."""
    first, second = frames(4, seed=1), frames(3, seed=2)

    with open_feed(kind) as feed:
        arrived = feed.take(first) + feed.take(second)

    assert len(arrived) == 7
    for came, sent in zip(arrived, first + second, strict=True):
        assert came.jpeg is not None
        assert np.abs(decoded(came.jpeg).astype(int) - sent).mean() < 4


@pytest.mark.parametrize("kind", ["file", "http"])
def test_a_black_frame_is_refused_by_the_source_under_its_code(kind: FeedKind):
    """A frame that shows nothing keeps its place among the others."""
    sent = frames(2, seed=1)
    with open_feed(kind) as feed:
        arrived = feed.take([sent[0], np.zeros_like(sent[0]), sent[1]])
    assert [came.refusal for came in arrived] == ["", Refusal.BLACK_FRAME, ""]
    assert [came.jpeg is None for came in arrived] == [False, True, False]
