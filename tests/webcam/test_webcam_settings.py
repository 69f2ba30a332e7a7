"""What a site may say about its camera, and what each thing is called."""

import pytest
from pydantic import ValidationError
from webcam_parts import settings

from edge_agent.capture.device import DeviceKind, kind_of, named


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        (0, DeviceKind.CAMERA),
        ("/dev/video2", DeviceKind.CAMERA),
        ("http://10.0.0.7/video.mjpg", DeviceKind.STREAM),
        ("rtsp://10.0.0.7:554/live", DeviceKind.STREAM),
        ("nvarguscamerasrc ! nvvidconv ! appsink", DeviceKind.GSTREAMER),
        ("frames/%04d.png", DeviceKind.PICTURES),
        ("frames/f%d.jpg", DeviceKind.PICTURES),
        ("recording.avi", DeviceKind.VIDEO),
        ("100% of it!.mp4", DeviceKind.VIDEO),
    ],
)
def test_a_device_is_known_by_how_it_is_written(device: int | str, kind: DeviceKind) -> None:
    """Number, address, pattern, pipeline or path: each says what kind of thing it is, and whether it ends."""
    assert kind_of(device) is kind
    assert kind.is_recording == (kind in (DeviceKind.PICTURES, DeviceKind.VIDEO))


def test_names_hold_no_password() -> None:
    """An address is told without user, password and query, a pipeline not at all."""
    assert named("rtsp://u:p@cam:554/live?key=1#x") == "stream rtsp://cam:554/live"
    assert named("rtspsrc location=rtsp://u:p@cam ! appsink") == "the GStreamer pipeline"
    assert named(3) == "camera 3"


def test_a_number_from_the_environment_is_a_number() -> None:
    """SLICELOOP_EDGE__WEBCAM__DEVICE=1 comes as text, and means the second camera."""
    assert settings("1").device == 1


@pytest.mark.parametrize(
    "chosen",
    [
        {"device": ""},
        {"device": -1},
        {"reconnect_min_s": 9.0, "reconnect_max_s": 1.0},
        {"trigger": "sometimes"},
        {"burst_frames": 0},
        {"fourcc": "MJP"},
        {"max_megapixels": 500},
        {"colour": "red"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(chosen: dict[str, object]) -> None:
    """No device, pauses the wrong way round, unknown words, too large numbers, foreign keys: refused when read."""
    with pytest.raises(ValidationError):
        settings(**{"device": 0, **chosen})
