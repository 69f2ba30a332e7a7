"""Fit the numbers of edge_agent.locate.judge to simulated frames: `python -m sliceloop.judge_fit DATA`.

Above edge and training, because it needs the one's measures and the other's simulator. Two fits, both a conditional
logit over a frame's quads and the answer "none": the scorecard over how outlines look, then the network over how the
best of them look, ranked by scorecards that had not seen the frame.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_agent.locate import judge, search
from edge_agent.locate.bgr import brightness
from edge_agent.locate.edges import find_edges
from edge_agent.locate.lines import find_lines
from edge_agent.locate.looks import CONTENT, OUTLINE, content_looks, outline_looks
from edge_agent.locate.quads import Quads, find_quads
from protocol.labels import LABELS
from sliceloop.capture_bench.look import iou_of
from training.data.dataset import open_dataset
from training.data.phantom import SITES, render_slice
from training.screen_camera import EmptyScene, Family, empty_scene, shoot

Floats = NDArray[np.float32]
Slice = NDArray[np.uint8]

SMALL_SIZE = (640, 360)
PHANTOM_SHARE = 0.35
REAL_SHARES = {
    "drenet": 0.36, "mosmed-ct0": 0.16, "mosmed-ct1": 0.18, "mosmed-ct2": 0.12, "saopaulo": 0.10, "cvt-nor": 0.08,
}  # fmt: skip
"""About as the chest-ct test split mixes its sources; covid-ct-md, which has no training slices, counts as mosmed's."""
KNOT_QUANTILES = (0.01, 0.15, 0.5, 0.85, 0.99)
RIGHT_IOU, NEARLY_BEST, WRONG_IOU, CLEARLY_WORSE = 0.92, 0.012, 0.9, 0.03
"""A quad is right from here on and when nearly the best of its frame; in between it counts as neither."""
CARD_DECAY, NETWORK_DECAY = 2e-4, 7e-4
HIDDEN, FOLDS = 16, 3


@dataclass(frozen=True)
class Shown:
    """A small picture and its slice's outline in it, or None."""

    small: Slice
    quad: NDArray[np.float32] | None


@dataclass(frozen=True)
class Choices:
    """Quads of all frames: how they look [n, looks], which frame each is of, whether it is right, whether it counts."""

    looks: Floats
    frame: NDArray[np.intp]
    right: NDArray[np.bool_]
    counts: NDArray[np.bool_]


def simulated(data: Path, severity: float, seeds: range) -> Iterator[Shown]:
    """Yield photographs of slices of a data set's training split, and of phantoms."""
    dataset = open_dataset(data)
    by_source: dict[str, list[str]] = {source: [] for source in sorted(REAL_SHARES)}
    for row in dataset.rows:
        if row.split == "train" and row.source in by_source:
            by_source[row.source].append(row.file)
    shares = np.array([REAL_SHARES[source] for source in by_source])
    for seed in seeds:
        rng = np.random.default_rng([seed, 7919])
        if rng.random() < PHANTOM_SHARE:
            slice_ = _phantom(rng)
        else:
            files = by_source[str(rng.choice(list(by_source), p=shares / shares.sum()))]
            slice_ = np.asarray(cv2.imread(str(data / files[rng.integers(len(files))]), cv2.IMREAD_GRAYSCALE), np.uint8)
        shot = shoot(slice_, severity=severity, seed=seed, family=Family.TRAINING)
        yield Shown(_small(shot.frame), ((shot.quad + 0.5) / 2 - 0.5).astype(np.float32))


def simulated_empty(severity: float, seeds: range) -> Iterator[Shown]:
    """Yield scenes without a slice, each kind as often."""
    kinds = tuple(EmptyScene)
    for seed in seeds:
        scene = empty_scene(kinds[seed % len(kinds)], severity=severity, seed=seed, family=Family.TRAINING)
        yield Shown(_small(scene), None)


def fit_judge(frames: Sequence[Shown]) -> dict[str, object]:
    """Return what judge.json holds."""
    torch.manual_seed(0)
    quads = [_quads(shown) for shown in frames]
    outlines = _choices(frames, [(each.corners, looks) for each, looks in quads])
    knots = _knots(outlines)
    scores = np.zeros(len(outlines.frame), np.float32)
    for fold in range(FOLDS):
        card = _fitted(_hats(outlines.looks, knots), outlines, outlines.frame % FOLDS != fold, 0, CARD_DECAY)
        other = outlines.frame % FOLDS == fold
        scores[other] = card(_hats(outlines.looks[other], knots))
    starts = np.concatenate([[0], np.cumsum([len(each) for each, _ in quads])])
    best = [
        _looked_into(shown, each, looks, scores[starts[i] : starts[i + 1]])
        for i, (shown, (each, looks)) in enumerate(zip(frames, quads, strict=True))
    ]
    judged = _choices(frames, best)
    mean, scale = judged.looks.mean(0), judged.looks.std(0) + np.float32(1e-6)
    usual = np.clip((judged.looks - mean) / scale, -4, 4).astype(np.float32)
    everything = np.ones(len(outlines.frame), np.bool_)
    card = _fitted(_hats(outlines.looks, knots), outlines, everything, 0, CARD_DECAY)
    network = _fitted(usual, judged, np.ones(len(judged.frame), np.bool_), HIDDEN, NETWORK_DECAY)
    return {
        "fitted to": {
            "data": "simulated frames of training.screen_camera, TRAINING family",
            "frames with a slice": sum(shown.quad is not None for shown in frames),
            "empty scenes": sum(shown.quad is None for shown in frames),
        },
        "outline": _card(card.layers, knots),
        "looks": list(CONTENT + OUTLINE),
        "network": _network(network.layers, mean, scale),
    }


class _Fit:
    """Layers, and the score [n] that they give."""

    def __init__(self, layers: nn.Sequential) -> None:
        self.layers = layers

    def __call__(self, looks: Floats) -> Floats:
        with torch.no_grad():
            return np.asarray(self.layers(torch.from_numpy(looks))[:, 0].numpy(), np.float32)


def _fitted(looks: Floats, choices: Choices, of_fold: NDArray[np.bool_], hidden: int, decay: float) -> _Fit:
    """Raise the likelihood that a frame's right quads are chosen, and none where it has no right one."""
    used = of_fold & choices.counts
    x, right = torch.from_numpy(looks[used]), torch.from_numpy(choices.right[used])
    frames, frame = torch.unique(torch.from_numpy(choices.frame[used]), return_inverse=True)
    last = nn.Linear(hidden or x.shape[1], 1)
    layers = nn.Sequential(nn.Linear(x.shape[1], hidden), nn.Tanh(), last) if hidden else nn.Sequential(last)
    if not hidden:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    has_right = torch.zeros(len(frames), dtype=torch.bool)
    has_right[frame[right]] = True
    optimizer = torch.optim.LBFGS(layers.parameters(), max_iter=200 if hidden else 50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        weight = torch.exp(layers(x)[:, 0].clamp(-30, 30))
        everything = 1 + torch.zeros(len(frames)).index_add(0, frame, weight)
        chosen = torch.zeros(len(frames)).index_add(0, frame[right], weight[right])
        likelihood = torch.where(has_right, torch.log(chosen + 1e-12), torch.zeros(len(frames))) - torch.log(everything)
        total = -likelihood.mean() + decay * sum((p**2).sum() for p in layers.parameters())
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return _Fit(layers)


def _quads(shown: Shown) -> tuple[Quads, Floats]:
    grey = brightness(shown.small)
    edges = find_edges(grey)
    upright, level, _ = find_lines(edges)
    quads = find_quads(upright, level, edges.shape)
    if not len(quads):
        return quads, np.zeros((0, len(OUTLINE)), np.float32)
    return quads, outline_looks(np.asarray(cv2.blur(grey, (3, 3)), np.uint8), quads)


def _looked_into(shown: Shown, quads: Quads, looks: Floats, scores: Floats) -> tuple[NDArray[np.float64], Floats]:
    """Return the best quads by these scores, and how they look inside and outside."""
    if not len(quads):
        return quads.corners, np.zeros((0, len(CONTENT + OUTLINE)), np.float32)
    edges = find_edges(brightness(shown.small))
    axis = find_lines(edges)[2]
    best = search.distinct(quads.corners, scores)
    smooth = np.asarray(cv2.blur(shown.small, (3, 3)), np.uint8)
    content = content_looks(smooth, edges, axis, quads.corners[best], scores[best])
    return quads.corners[best], np.hstack([content, looks[best]])


def _choices(frames: Sequence[Shown], quads: Sequence[tuple[NDArray[np.float64], Floats]]) -> Choices:
    overlaps = [_overlaps(corners, shown.quad) for shown, (corners, _) in zip(frames, quads, strict=True)]
    best = np.concatenate([np.full(len(each), each.max(initial=0)) for each in overlaps])
    overlap = np.concatenate(overlaps)
    right = (overlap > RIGHT_IOU) & (overlap >= best - NEARLY_BEST)
    wrong = (overlap < WRONG_IOU) | (overlap < best - CLEARLY_WORSE)
    frame = np.repeat(np.arange(len(frames)), [len(each) for each in overlaps])
    return Choices(np.vstack([looks for _, looks in quads]), frame, right, right | wrong)


def _overlaps(corners: NDArray[np.float64], quad: NDArray[np.float32] | None) -> NDArray[np.float64]:
    if quad is None:
        return np.zeros(len(corners))
    return np.array([iou_of(each, quad) for each in corners], np.float64)


def _knots(choices: Choices) -> list[Floats]:
    """Return for each look the places between which its points are linear."""
    values = np.vstack([choices.looks[choices.right], choices.looks[::20]])
    return [np.unique(np.quantile(column, KNOT_QUANTILES)).astype(np.float32) for column in values.T]


def _hats(looks: Floats, knots: Sequence[Floats]) -> Floats:
    """Return for each look and knot how near a quad is to it, so that a linear fit is linear between knots."""
    columns = [np.interp(looks[:, i], at, np.eye(len(at))[k]) for i, at in enumerate(knots) for k in range(len(at))]
    return np.stack(columns, axis=1).astype(np.float32)


def _card(layers: nn.Sequential, knots: Sequence[Floats]) -> dict[str, dict[str, list[float]]]:
    weight, bias = (parameter.detach().numpy().ravel() for parameter in layers.parameters())
    points = np.split(weight, np.cumsum([len(at) for at in knots])[:-1])
    points[0] = points[0] + bias
    return {
        name: {"knots": _rounded(at, 5), "points": _rounded(p, 4)}
        for name, at, p in zip(OUTLINE, knots, points, strict=True)
    }


def _network(layers: nn.Sequential, mean: Floats, scale: Floats) -> dict[str, object]:
    hidden, hidden_bias, output, output_bias = (parameter.detach().numpy() for parameter in layers.parameters())
    return {
        "mean": _rounded(mean, 5),
        "scale": _rounded(scale, 5),
        "hidden": [_rounded(row, 4) for row in hidden.T],
        "hidden bias": _rounded(hidden_bias, 4),
        "output": _rounded(output[0], 4),
        "output bias": round(float(output_bias[0]), 4),
    }


def _rounded(values: Floats, digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]


def _phantom(rng: np.random.Generator) -> Slice:
    return render_slice(
        seed=5,
        site=SITES[str(rng.choice(sorted(SITES)))],
        label=LABELS[rng.integers(len(LABELS))],
        patient=int(rng.integers(60)),
        z=float(rng.uniform(0.1, 0.9)),
    )


def _small(frame: Slice) -> Slice:
    return np.asarray(cv2.resize(frame, SMALL_SIZE, interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True)
class Batch:
    """Frames of one severity, with a slice or without."""

    severity: float
    seeds: range
    is_empty: bool = False


PLAN = (
    Batch(1.0, range(200_000, 203_500)),
    Batch(1.6, range(220_000, 223_500)),
    Batch(0.6, range(215_000, 215_500)),
    Batch(0.0, range(235_000, 235_200)),
    Batch(1.0, range(210_000, 211_500), is_empty=True),
    Batch(1.6, range(230_000, 231_000), is_empty=True),
)
"""Half an hour on one core. judge.json as it stands was fitted to 8,400 frames that were drawn in the same way: a new
fit gives numbers that differ a little."""


def frames_of(batch: Batch, data: Path) -> Iterator[Shown]:
    """Simulate a batch."""
    if batch.is_empty:
        return simulated_empty(batch.severity, batch.seeds)
    return simulated(data, batch.severity, batch.seeds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate the plan's frames, fit, and write judge.json into its place."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("data", type=Path, help="folder of the chest-ct data set; its training split is photographed")
    data = parser.parse_args(arguments).data
    frames = [shown for batch in PLAN for shown in frames_of(batch, data)]
    out = Path(judge.__file__).with_name(judge.WEIGHTS_FILE)
    out.write_text(json.dumps(fit_judge(frames)) + "\n")


if __name__ == "__main__":
    main()
