"""What a site chooses about its camera; units stand in the names."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Trigger = Literal["still", "interval", "key"]


class WebcamSettings(BaseModel):
    """The `webcam` source: a camera, a stream or a recording of one, read frame by frame."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: int | str = 0
    """Number of the camera (or /dev/video0), address of an MJPEG or RTSP stream, path of a video file, pattern of a
    sequence of pictures (frames/%04d.png), or a GStreamer string that ends in appsink."""
    trigger: Trigger = "still"
    """When a picture is taken: a new slice stands still in view, time has passed, or somebody presses the key. The key
    always works besides."""
    interval_s: float = Field(default=5.0, ge=0)
    """Time between two pictures of the trigger `interval`; 0 takes every frame."""
    burst_frames: int = Field(default=5, ge=1, le=16)
    """So many frames are taken for a picture, and the sharp ones among them fused."""
    still_s: float = Field(default=0.6, gt=0)
    """So long does a slice stand still before it is taken."""
    still_change: float = Field(default=0.12, gt=0, le=2)
    """Change of the slice's area, relative to its contrast, that still counts as standing still."""
    new_slice_change: float = Field(default=0.03, gt=0, le=2)
    """What motion and exposure do not explain of the change since the last picture, relative to contrast: from here on
    it is a new slice. Noise makes 0.005, a slice 5 mm away 0.04 or more."""
    moved_share: float = Field(default=0.02, gt=0, le=1)
    """Way of the slice's corners, as a share of its side, that still counts as standing still."""
    look_every_s: float = Field(default=0.15, ge=0)
    """How often the slice is looked for while waiting for it."""
    retake_after_s: float = Field(default=2.0, ge=0)
    """Pause before a refused slice is taken again by itself; it doubles, up to 32 times as long, until another slice is
    shown or the picture is good."""
    settle_frames: int = Field(default=5, ge=2, le=60)
    """Exposure has settled when so many frames in a row are equally bright."""
    settle_mean: float = Field(default=3.0, gt=0)
    """Largest difference of their mean, in grey levels of 255."""
    settle_spread: float = Field(default=3.0, gt=0)
    """Largest difference of their standard deviation, in grey levels of 255."""
    settle_max_s: float = Field(default=3.0, ge=0)
    """Longest wait for that; then the picture is taken as it is. 0 waits for nothing."""
    black_after_s: float = Field(default=3.0, gt=0)
    """A camera that gives black frames for so long is opened again."""
    frozen_after_s: float = Field(default=5.0, ge=0)
    """A camera that gives the very same frame for so long is opened again; 0 does not look (for rendered streams)."""
    open_timeout_s: float = Field(default=10.0, gt=0)
    """A camera that is not open by then is given up and tried again."""
    stall_timeout_s: float = Field(default=5.0, gt=0)
    """A camera that gives no frame for so long is given up and opened again."""
    reconnect_min_s: float = Field(default=0.5, gt=0)
    """First pause before a lost camera is opened again; it doubles, with jitter."""
    reconnect_max_s: float = Field(default=30.0, gt=0)
    """Longest pause."""
    width: int | None = Field(default=1280, ge=32)
    """Asked of a camera by its number; it may give another size."""
    height: int | None = Field(default=720, ge=32)
    """Asked of a camera by its number."""
    fps: float | None = Field(default=None, gt=0)
    """Asked of a camera by its number; of a sequence of pictures the pace (25 if not given)."""
    fourcc: str = Field(default="", pattern=r"^(.{4})?$")
    """Pixel format asked of a camera by its number; MJPG lets many give 30 frames a second at 1280x720."""
    max_megapixels: float = Field(default=40.0, gt=0, le=64)
    """A frame of this size or more is refused."""
    pace: Literal["real", "fast"] = "real"
    """A recording goes at the speed of its own times, frames being dropped as a camera's would; or as fast as it is
    read, each frame seen."""
    encoding: Literal["jpeg", "png"] = "jpeg"
    """How the fused frame is kept; a PNG of 1280x720 has about 2 MB, more than brokers take."""
    jpeg_quality: int = Field(default=95, ge=80, le=100)
    """Of the kept frame."""
    patient_id: str = Field(default="", max_length=200)
    """Whose slices are shown; by default one unknown patient for each start of the agent."""

    @field_validator("device")
    @classmethod
    def _device_is_named(cls, device: int | str) -> int | str:
        """Take a number that came as text (from the environment) as a number; refuse what names nothing."""
        if isinstance(device, str) and device.strip().isdecimal():
            device = int(device)
        if device in ("", -1) or (isinstance(device, int) and device < 0):
            raise ValueError("names no camera: give its number (0 is the first), a path or an address")
        return device

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.reconnect_max_s < self.reconnect_min_s:
            raise ValueError("reconnect_max_s must not be less than reconnect_min_s")
        return self
