"""Find the four sides of a quad to a fraction of a pixel: the edge across each side, and a robust curve along it.

A lens bends straight lines a little, so a side is a parabola; the corners are where neighbouring parabolas meet. Where
a thin line or a black frame runs around the slice, its inner edge is the slice's.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.locate.edges import Grey

Doubles = NDArray[np.float64]

PLACES = 64
"""At so many places along a side the edge is looked for."""
OUTWARD_PX, INWARD_PX = 9, 22
"""How far out and in."""
FRAME_PX = 12
"""A frame drawn around the slice is at most this thick."""

_PIECES = 16
"""For the first guess of a side its places are taken together in so many pieces."""
_ALONG_PLACES = 3
"""Neighbouring places are averaged: noise and screen pixels go, the side's slant over them does not matter."""
_SLOPE = np.array([[-1, -2, 0, 2, 1]], np.float32) / 8
"""The derivative across a side: a smoothed difference, grey levels a pixel."""
_LEAST_SLOPE, _MOST_LEAST_SLOPE, _NOISES = 2.5, 6.0, 4.0
"""An edge is at least so steep: a multiple of the median slope, within bounds."""
_WINDOWS_PX = (3.0, 2.0, 1.5)
"""How far from the curve an edge may lie, in the rounds of the fit."""
_STIFFNESS = 3.0
"""Against bending where few places speak."""
_LEAST_PLACES = 16
_LEAST_OF_FRAME = 0.6
"""The inner edge of a frame is seen along so much of the side..."""
_FRAME_TO_EDGE = 0.12
"""...and is so steep, relative to the outer one: the dark rim that sharpening leaves is weaker."""
_ALONG = (np.arange(PLACES) + 0.5) / PLACES
_CURVE = np.stack([np.ones(PLACES), _ALONG, 4 * _ALONG * (1 - _ALONG)], axis=1)
"""A curve's three numbers: its distance at the start, its rise to the end, and its bow."""


@dataclass(frozen=True)
class Sides:
    """The refined quad float64 [4, 2], and for each side (top, right, bottom, left) what speaks for it.

    `held` [4] is the share of places, 0..1, whose edge lies on the side's curve; `bow_px` [4] how far it bends inwards.
    """

    quad: Doubles
    held: Doubles
    bow_px: Doubles


def refine(grey: Grey, quad: Doubles) -> Sides:
    """Move the sides of a quad [4, 2], right to a few pixels, onto the edges in a grey picture uint8."""
    slopes, inward = _slopes_across(grey, quad)
    least = float(np.clip(_NOISES * np.median(np.abs(slopes)), _LEAST_SLOPE, _MOST_LEAST_SLOPE))
    ridge = _ridges(np.abs(slopes))
    curves, held = _fitted(np.abs(slopes), _first_guess(ridge, least), least, _WINDOWS_PX)
    curves, held = _inside_frames(slopes, ridge, curves, held, least)
    return Sides(_corners(quad, inward, curves), held, curves[:, 2])


def _slopes_across(grey: Grey, quad: Doubles) -> tuple[Doubles, Doubles]:
    """Return the derivative [4, places, offsets] across the sides, inwards, and the inward unit vectors [4, 2]."""
    following = np.roll(quad, -1, axis=0)
    along = following - quad
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    inward = np.stack([-along[:, 1], along[:, 0]], axis=1)
    places = quad[:, None] + _ALONG[:, None] * (following - quad)[:, None]
    offsets = np.arange(-OUTWARD_PX - 2, INWARD_PX + 3)
    at = (places[:, :, None] + offsets[:, None] * inward[:, None, None]).astype(np.float32)
    at = at.reshape(4 * PLACES, len(offsets), 2)
    x, y = np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
    values = cv2.remap(grey, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(4, PLACES, -1)
    smooth = [cv2.blur(side.astype(np.float32), (1, _ALONG_PLACES)) for side in values]
    slopes = cv2.filter2D(np.concatenate(smooth), cv2.CV_32F, _SLOPE)[:, 2:-2]
    return slopes.reshape(4, PLACES, -1).astype(np.float64), inward


def _ridges(steepness: Doubles) -> Doubles:
    """Keep the local maxima across the side, and 0 elsewhere."""
    ridge = np.zeros_like(steepness)
    inner = steepness[..., 1:-1]
    ridge[..., 1:-1] = np.where((inner >= steepness[..., :-2]) & (inner >= steepness[..., 2:]), inner, 0)
    return ridge


def _first_guess(ridge: Doubles, least: float) -> Doubles:
    """Return for each side the straight line [4, 3] on which most places have an edge, the steeper the better."""
    vote = np.minimum(ridge / least, 1) * (ridge > 0.5 * least) + 0.05 * np.minimum(ridge / (8 * least), 1)
    thick = cv2.dilate(vote.reshape(4 * PLACES, -1), np.ones((1, 3), np.uint8))
    piece = thick.reshape(4, _PIECES, -1, vote.shape[2]).mean(2)
    total = piece[:, np.arange(_PIECES), _LINE_AT].mean(-1) + _LINE_PRIOR
    start, end = np.divmod(total.reshape(4, -1).argmax(1), _LINE_PRIOR.shape[1])
    return np.stack([start, end - start, np.zeros(4)], axis=1).astype(np.float64)


def _fitted(
    steepness: Doubles, curves: Doubles, least: float, windows_px: tuple[float, ...]
) -> tuple[Doubles, Doubles]:
    """Fit each side's curve [4, 3] to the edges near it; return also the share of places that hold it."""
    held = np.zeros(4)
    stiff = np.diag([1e-6, 1e-6, _STIFFNESS])
    for window in windows_px:
        place, weight = _nearest_edges(steepness, curves @ _CURVE.T, window, least)
        weighted = weight[:, :, None] * _CURVE
        normal = weighted.transpose(0, 2, 1) @ _CURVE + stiff
        solved = np.linalg.solve(normal, (weighted * place[:, :, None]).sum(1)[..., None])[..., 0]
        speaks = (weight > 0).sum(1) >= _LEAST_PLACES
        curves = np.where(speaks[:, None], solved, curves)
        held = np.where(speaks, (weight > 0.15).mean(1), 0.0)
    return curves, held


def _nearest_edges(steepness: Doubles, curve: Doubles, window: float, least: float) -> tuple[Doubles, Doubles]:
    """Return the steepest place [4, places] within the window about the curve, and how much it counts, 0..1."""
    n_offsets = steepness.shape[2]
    around = np.clip(np.rint(curve).astype(np.intp), 4, n_offsets - 5)[..., None] + np.arange(-3, 4)
    near = np.take_along_axis(steepness, around, 2) * (np.abs(around - curve[..., None]) <= window + 0.5)
    at = np.take_along_axis(around, near.argmax(2)[..., None], 2)
    before, here, after = (np.take_along_axis(steepness, at + shift, 2)[..., 0] for shift in (-1, 0, 1))
    bend = np.minimum(before - 2 * here + after, -1e-9)
    place = at[..., 0] + np.clip(0.5 * (before - after) / bend, -0.5, 0.5)
    away = np.minimum(np.abs(place - curve) / (window + 0.5), 1)
    weight = np.minimum(here / least, 1) * (here > 0.4 * least) * (1 - away**2) ** 2
    return np.asarray(place, np.float64), np.asarray(weight, np.float64)


def _inside_frames(
    slopes: Doubles, ridge: Doubles, curves: Doubles, held: Doubles, least: float
) -> tuple[Doubles, Doubles]:
    """Move sides that are the outer edge of a thin frame, or of a line, to its inner edge."""
    curve = curves @ _CURVE.T
    on_curve = np.clip(np.rint(curve).astype(np.intp), 0, slopes.shape[2] - 1)
    outer = np.median(np.take_along_axis(slopes, on_curve[..., None], 2)[..., 0], axis=1)
    opposite = slopes * -np.sign(outer)[:, None, None]
    steep = np.maximum(0.5 * least, _FRAME_TO_EDGE * np.abs(outer))[:, None, None]
    seen = ((ridge > 0) & (opposite > steep)).astype(np.uint8).reshape(4 * PLACES, -1)
    thick = cv2.dilate(seen, np.ones((1, 3), np.uint8)).reshape(slopes.shape)
    depth = np.arange(1, FRAME_PX + 1)
    at = np.clip(np.rint(curve[..., None] + depth).astype(np.intp), 0, slopes.shape[2] - 1)
    share = np.take_along_axis(thick, at, 2).mean(1)
    nearest = (share >= share.max(1, keepdims=True) - 0.05).argmax(1)
    guess = curves + np.outer(depth[nearest], [1, 0, 0])
    inner, inner_held = _fitted(np.maximum(opposite, 0), guess, least, _WINDOWS_PX[1:])
    moves = (outer != 0) & (share.max(1) >= _LEAST_OF_FRAME) & (inner_held > 0.5)
    return np.where(moves[:, None], inner, curves), np.where(moves, inner_held, held)


def _corners(quad: Doubles, inward: Doubles, curves: Doubles) -> Doubles:
    """Return where each side's curve meets the one before it, both taken as straight near the corner."""
    chord = np.roll(quad, -1, axis=0) - quad
    start = quad + (curves[:, :1] - OUTWARD_PX) * inward
    start_slope = chord + (curves[:, 1] + 4 * curves[:, 2])[:, None] * inward
    end = quad + chord + (curves[:, :1] + curves[:, 1:2] - OUTWARD_PX) * inward
    end_slope = chord + (curves[:, 1] - 4 * curves[:, 2])[:, None] * inward
    end, end_slope = np.roll(end, 1, axis=0), np.roll(end_slope, 1, axis=0)
    way = np.linalg.solve(np.stack([end_slope, -start_slope], axis=2), (start - end)[..., None])
    return np.asarray(end + way[:, 0] * end_slope, np.float64)


def _lines_over_pieces() -> tuple[NDArray[np.intp], Doubles]:
    """Return, for lines from each offset to each, the offset [n, m, pieces] at each piece, and a mild preference."""
    start, end = np.meshgrid(np.arange(2 * OUTWARD_PX + 1), np.arange(2 * OUTWARD_PX + 1), indexing="ij")
    along = (np.arange(_PIECES) + 0.5) / _PIECES
    at = np.rint(start[..., None] * (1 - along) + end[..., None] * along).astype(np.intp)
    prior = -0.01 * (np.abs((start + end) / 2 - OUTWARD_PX) + np.abs(start - end)) / OUTWARD_PX
    return at, prior


_LINE_AT, _LINE_PRIOR = _lines_over_pieces()
