"""A process's clock that jumps while it runs: libfaketime, told by a file."""

from pathlib import Path

HOUR_S = 3600
LIBRARY = "libfaketime.so.1"
PLACES = ("/usr/lib", "/usr/local/lib")


def find_library() -> Path | None:
    """Return where libfaketime is (Debian: package libfaketime)."""
    found = (path for place in PLACES for path in sorted(Path(place).glob(f"**/faketime/{LIBRARY}")))
    return next(found, None)


def environment(library: Path, file: Path) -> dict[str, str]:
    """Return the environment of a process whose clock the file sets; its monotonic clock stays as it is."""
    set_clock(file, 0)
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def set_clock(file: Path, offset_s: int) -> None:
    """Let the clock be so much ahead of the true time, from now on."""
    temporary = file.with_suffix(".new")
    temporary.write_text(f"{offset_s:+d}\n")
    temporary.replace(file)
