"""A leaked picture says so where it hides nothing."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from protocol.labels import Label
from training.explore.counts import Count
from training.explore.plots import counts_figure
from training.judging.canvas import figure, head_leaked


def comparison():
    canvas, (panel,) = figure("What accuracy costs", 8, 4)
    panel.plot([1, 2], [0, 1], label="a network")
    panel.set_xlabel("MB as ONNX")
    canvas.legend(*panel.get_legend_handles_labels(), loc="outside lower center")
    return canvas


def counts():
    return counts_figure([Count(split="train", source="here", label=Label.NORMAL, n_slices=2, n_patients=1)])


@pytest.mark.parametrize("draw", [comparison, counts])
def test_sentence_of_a_leak_covers_neither_legend_nor_plot(draw):
    """The red sentence stands over the title, apart from the legend and the panels."""
    canvas = draw()
    title = canvas.get_suptitle()
    head_leaked(canvas, "LEAKED: patients on both sides")
    assert canvas.get_suptitle() == f"LEAKED: patients on both sides\n{title}"
    renderer = FigureCanvasAgg(canvas).get_renderer()
    canvas.draw(renderer)
    (said,) = canvas.texts or [canvas._suptitle]
    others = [*canvas.legends, *canvas.axes]
    assert not any(said.get_window_extent(renderer).overlaps(other.get_tightbbox(renderer)) for other in others)
