"""The calibration as a file: JSON with a version, checked before it is believed."""

import json
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge_agent.calibration.errors import UnknownCalibrationVersionError, UnreadableCalibrationError

CALIBRATION_VERSION = 1
GREYS = 256
SHADING_TERMS = 6
MAX_CALIBRATION_BYTES = 64 * 1024

Gain = Annotated[float, Field(gt=0.05, lt=20, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
LightLevel = Annotated[float, Field(ge=0, le=4, allow_inf_nan=False)]
Coefficient = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
SidePx = Annotated[int, Field(ge=16, le=20_000)]


class Calibration(BaseModel):
    """What display, lens and camera do to greys, for one camera before one screen or light box, both left in place."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    version: Literal[1] = 1
    """Grows when older programs could not use the file."""
    made_at: AwareDatetime
    """When the page was photographed, as far as the program knows."""
    frame_size: tuple[SidePx, SidePx]
    """Height and width of the frame, in pixels."""
    gains: tuple[Gain, Gain, Gain]
    """Factors on the light of blue, green and red that make the page grey."""
    weights: tuple[Weight, Weight, Weight]
    """Shares of blue, green and red in the grey, by how little noise each has; they sum to 1."""
    curve: Annotated[tuple[LightLevel, ...], Field(min_length=GREYS, max_length=GREYS)]
    """The camera's light for each grey 0..255 at the frame's middle; it rises strictly."""
    shading: Annotated[tuple[Coefficient, ...], Field(min_length=SHADING_TERMS, max_length=SHADING_TERMS)]
    """Light over that of the middle, as a polynomial 1, x, y, x², xy, y² in half frame widths from the middle."""
    surround: LightLevel
    """Light of the page around the calibration page, evened out; a later one tells how far exposure has drifted."""
    distortion: Annotated[float, Field(ge=-0.5, le=0.5, allow_inf_nan=False)] = 0.0
    """Radial: a lens without it shows r (1 + k r²) for r, which is 1 at the frame's corner."""
    residual: Annotated[float, Field(ge=0, le=255, allow_inf_nan=False)]
    """R.m.s. difference of the page's patches from the fit, in grey levels."""

    @model_validator(mode="after")
    def _is_a_curve(self) -> Self:
        if not (np.diff(self.curve) > 0).all():
            raise ValueError("the curve must rise from each grey to the next")
        if abs(sum(self.weights) - 1) > 1e-3:  # written with few digits
            raise ValueError("the weights of the channels must sum to 1")
        if not 0.5 <= self.shading[0] <= 2:
            raise ValueError("the shading must be near 1 in the middle")
        return self


def parse_calibration(data: bytes) -> Calibration:
    """Read a calibration file.

    Raises `UnreadableCalibrationError`, or `UnknownCalibrationVersionError` for one of a newer program.
    """
    if len(data) > MAX_CALIBRATION_BYTES:
        raise UnreadableCalibrationError(f"{len(data):,} bytes are no calibration: at most {MAX_CALIBRATION_BYTES:,}")
    try:
        content = json.loads(data)
        version = content.get("version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > CALIBRATION_VERSION:
            raise UnknownCalibrationVersionError(version, CALIBRATION_VERSION)
        return Calibration.model_validate(content)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UnreadableCalibrationError(f"not JSON ({error}); calibrate again") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "calibration"
        raise UnreadableCalibrationError(f"{where}: {first['msg']}; calibrate again") from None
