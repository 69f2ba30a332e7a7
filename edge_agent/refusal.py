"""Why a frame is not read: a code for counting, and a sentence for the person in front of the camera."""

from enum import StrEnum


class Refusal(StrEnum):
    """What stands between a frame and a reading; the values are counted and sent, so they stay as they are."""

    NO_SLICE = "no-slice"
    CUT_BY_FRAME = "cut-by-frame"
    UNSURE_OUTLINE = "unsure-outline"
    TOO_SMALL = "too-small"
    NOT_SHARP = "not-sharp"
    GLARE = "glare"
    CLIPPED = "clipped"
    TOO_DARK = "too-dark"
    MIRRORED = "mirrored"
    ROTATED = "rotated"
    NOT_A_CHEST_CT = "not-a-chest-ct"
    UNLIKE_LEARNT = "unlike-learnt"
    BLACK_FRAME = "black-frame"
    FROZEN_CAMERA = "frozen-camera"


class Side(StrEnum):
    """Where in the slice, as the person sees it on the screen."""

    LEFT = "left"
    RIGHT = "right"
    TOP = "top"
    BOTTOM = "bottom"
    MIDDLE = "middle"


def sentence(refusal: Refusal, where: Side | None = None) -> str:
    """Say what is wrong and what to do about it; `where` tells the place of glare, where it is known."""
    return SENTENCES[refusal].format(where=_PLACES[where])


def hint(refusal: Refusal, where: Side | None = None) -> str:
    """Say it in the two or three words that stand over the live picture."""
    return HINTS[refusal].format(where=_PLACES[where])


SENTENCES: dict[Refusal, str] = {
    Refusal.NO_SLICE: "No slice in view: point the camera at the CT slice so that all four edges show.",
    Refusal.CUT_BY_FRAME: (
        "The slice is cut by the picture's edge{where}: move the camera back or towards the slice's middle."
    ),
    Refusal.UNSURE_OUTLINE: (
        "The slice's outline is unsure: show it alone, with a plain border around it, and nothing across its edges."
    ),
    Refusal.TOO_SMALL: "The slice is too small: move the camera closer or enlarge the slice on the screen.",
    Refusal.NOT_SHARP: "The picture is not sharp: hold the camera still and let it focus, or wipe its lens.",
    Refusal.GLARE: "Glare{where}: turn the screen or the camera, or shade the lamp or window that it mirrors.",
    Refusal.CLIPPED: "The picture is too bright, its light parts are lost: dim the screen or lower the exposure.",
    Refusal.TOO_DARK: "The picture is too dark: brighten the screen or the light box, or raise the exposure.",
    Refusal.MIRRORED: "The slice is mirrored: turn the film over, or switch off mirroring in the camera or the viewer.",
    Refusal.ROTATED: "The slice is rotated: turn the film or the camera until the patient's front is at the top.",
    Refusal.NOT_A_CHEST_CT: "This is no chest CT slice: show an axial slice through the lungs in the lung window.",
    Refusal.UNLIKE_LEARNT: (
        "The slice is unlike anything that the network learnt from, so it is not read: take it again, "
        "and give it to a person if that does not help."
    ),
    Refusal.BLACK_FRAME: "The camera gives a black picture: take off its cover, and close other programs that use it.",
    Refusal.FROZEN_CAMERA: "The camera gives the same picture again and again: unplug it and plug it in again.",
}
"""`{where}` becomes " on the left" and so on, or nothing."""

HINTS: dict[Refusal, str] = {
    Refusal.NO_SLICE: "show the slice",
    Refusal.CUT_BY_FRAME: "whole slice in view",
    Refusal.UNSURE_OUTLINE: "clear the edges",
    Refusal.TOO_SMALL: "closer",
    Refusal.NOT_SHARP: "hold still",
    Refusal.GLARE: "glare{where}",
    Refusal.CLIPPED: "too bright",
    Refusal.TOO_DARK: "too dark",
    Refusal.MIRRORED: "mirrored",
    Refusal.ROTATED: "turn upright",
    Refusal.NOT_A_CHEST_CT: "no chest CT",
    Refusal.UNLIKE_LEARNT: "take it again",
    Refusal.BLACK_FRAME: "camera is black",
    Refusal.FROZEN_CAMERA: "camera is frozen",
}

_PLACES = {
    None: "",
    Side.LEFT: " on the left",
    Side.RIGHT: " on the right",
    Side.TOP: " at the top",
    Side.BOTTOM: " at the bottom",
    Side.MIDDLE: " in the middle",
}
