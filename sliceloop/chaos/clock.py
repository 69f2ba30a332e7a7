"""A process's clock that jumps while it runs: `python -m sliceloop.chaos.clock FILE COMMAND...`, told by the file.

Python's wall clock alone is moved, before what asks for it is imported. Not libfaketime: under version 0.9.10, Python
3.11's waits (absolute times of the monotonic clock) fail with EINVAL or take twenty times as long.
"""

import contextlib
import datetime
import importlib
import sys
import threading
import time
from pathlib import Path
from typing import Self, cast

HOUR_S = 3600
LOOK_EVERY_S = 0.05
KNOW_TYPES = ("pydantic", "sqlalchemy", "psycopg")
"""Know values by their exact types, so they are imported while `datetime` is the true one; none asks for the time."""

_true_datetime, _true_time, _true_time_ns = datetime.datetime, time.time, time.time_ns
_offset_s = 0


def set_clock(file: Path, offset_s: int) -> None:
    """Let the clock of whoever follows the file be so much ahead of the true time, from now on."""
    temporary = file.with_suffix(f".{threading.get_ident()}.new")  # two faults may set one clock at once
    temporary.write_text(f"{offset_s:+d}\n")
    temporary.replace(file)


class _LooksTrue(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _true_datetime)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _true_datetime)


class ShiftedDatetime(datetime.datetime, metaclass=_LooksTrue):
    """datetime whose now is shifted; what it returns are true datetimes."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Self:
        """Return the shifted time."""
        return cast(Self, _true_datetime.fromtimestamp(_true_time() + _offset_s, tz))

    @classmethod
    def utcnow(cls) -> Self:
        """Return the shifted time without a zone, as libraries still ask for it."""
        return cast(Self, _true_datetime.fromtimestamp(_true_time() + _offset_s, datetime.UTC).replace(tzinfo=None))


def follow(file: Path) -> None:
    """Move this process's clock as the file says, from now on."""
    threading.Thread(target=_follow, args=(file,), name="clock", daemon=True).start()
    time.time = lambda: _true_time() + _offset_s
    time.time_ns = lambda: _true_time_ns() + _offset_s * 1_000_000_000
    datetime.datetime = ShiftedDatetime  # type: ignore[misc]


def _follow(file: Path) -> None:
    global _offset_s
    never = threading.Event()
    while True:
        _offset_s = int(file.read_text())
        never.wait(LOOK_EVERY_S)


def main() -> None:
    """Run `sliceloop COMMAND...` by the clock of the file."""
    for name in KNOW_TYPES:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    _acquaint_cbor()
    follow(Path(sys.argv[1]))
    from sliceloop.cli import main as command  # not before: it imports what asks for the time

    sys.argv = ["sliceloop", *sys.argv[2:]]
    command()


def _acquaint_cbor() -> None:
    """Write and read a time: cbor2 looks for the type at the first one."""
    cbor2 = importlib.import_module("cbor2")
    cbor2.loads(cbor2.dumps(_true_datetime.now(datetime.UTC)))


if __name__ == "__main__":
    main()
