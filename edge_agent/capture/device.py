"""What kind of thing a device setting names, and how it is called in messages: pure functions."""

import re
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

_NUMBER_IN_NAME = re.compile(r"%0?\d*d")
_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class DeviceKind(StrEnum):
    """How a device is opened, and whether it ends."""

    CAMERA = "camera"
    STREAM = "stream"
    GSTREAMER = "GStreamer pipeline"
    VIDEO = "video file"
    PICTURES = "sequence of pictures"

    @property
    def is_recording(self) -> bool:
        """Tell whether it has an end, and frames that wait until they are read."""
        return self in (DeviceKind.VIDEO, DeviceKind.PICTURES)


def kind_of(device: int | str) -> DeviceKind:
    """Return the kind of device that a setting names."""
    if isinstance(device, int) or device.startswith("/dev/"):
        return DeviceKind.CAMERA
    if _ADDRESS.match(device):
        return DeviceKind.STREAM
    if "!" in device and "appsink" in device:
        return DeviceKind.GSTREAMER
    return DeviceKind.PICTURES if _NUMBER_IN_NAME.search(device) else DeviceKind.VIDEO


def named(device: int | str) -> str:
    """Name a device for people, without the password that an address may hold."""
    kind = kind_of(device)
    if kind is DeviceKind.GSTREAMER:  # its location may hold one too
        return "the GStreamer pipeline"
    shown = _without_secrets(str(device)) if kind is DeviceKind.STREAM else str(device)
    return f"{kind} {shown}"


def picture_name(pattern: str) -> re.Pattern[str]:
    """Return what the file names of a sequence look like; group 1 is the number."""
    before, after = _NUMBER_IN_NAME.split(pattern, maxsplit=1)
    return re.compile(f"{re.escape(before)}([0-9]+){re.escape(after)}")


def _without_secrets(address: str) -> str:
    """Keep scheme, host and path of an address: its user and query may hold a password."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
