"""The paper's crop, as a comparison."""

import numpy as np

from sliceloop.capture_bench.look import iou_of
from sliceloop.capture_bench.paper_path import paper_crop


def page(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    frame = np.full((360, 640, 3), 230, np.uint8)
    frame[top:bottom, left:right] = 40
    return frame


def test_a_dark_upright_slice_on_an_even_page_is_cut_out_exactly():
    """Where the means jump most is where the slice begins and ends."""
    crop = paper_crop(page(60, 200, 300, 440))
    true = np.array([[199.5, 59.5], [439.5, 59.5], [439.5, 299.5], [199.5, 299.5]], np.float32)
    assert iou_of(crop.quad, true) == 1
    assert crop.pixels.shape == (256, 256)
    assert (crop.pixels == 40).all()


def test_what_lies_in_one_half_alone_is_cut_wrongly():
    """Each half has to hold one of the edges: a slice beside the middle is not found."""
    true = np.array([[19.5, 59.5], [259.5, 59.5], [259.5, 299.5], [19.5, 299.5]], np.float32)
    assert iou_of(paper_crop(page(60, 20, 300, 260)).quad, true) < 0.9


def test_a_frame_of_one_grey_gives_a_picture_all_the_same():
    """The paper's path never refuses."""
    assert paper_crop(np.full((360, 640, 3), 128, np.uint8)).pixels.shape == (256, 256)
