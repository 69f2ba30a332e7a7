"""What made a result, from which code, on what: for the story that every output tells; imported without torch."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

if TYPE_CHECKING:
    import torch

_CODE = Path(__file__).resolve().parent.parent
_CPU_LIST = Path("/proc/cpuinfo")
_GIT_TIMEOUT_S = 10.0


def code_commit(folder: Path = _CODE) -> str | None:
    """Return the commit of our code, "-dirty" behind it where files were changed; None outside our repository."""
    if not (folder / ".git").exists():  # installed, perhaps below somebody else's repository: theirs is not our commit
        return None
    command = ["git", "-C", str(folder), "describe", "--match=", "--always", "--abbrev=40", "--dirty"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None


def versions(*packages: str) -> dict[str, str]:
    """Return Python's version and those of installed packages."""
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def machine() -> dict[str, JsonValue]:
    """Say what kind of machine this is, without its name."""
    return {"machine": platform.machine(), "cpu": _cpu_name(), "cores": os.cpu_count()}


def hardware(device: "torch.device", threads: int, processes: int) -> dict[str, JsonValue]:
    """Say what computed, without the machine's name."""
    return {
        **machine(),
        "device": _cuda_name(device) if device.type == "cuda" else "cpu",
        "threads": threads,
        "processes": processes,
    }


def _cuda_name(device: "torch.device") -> str:
    import torch

    return torch.cuda.get_device_name(device)


def _cpu_name() -> str | None:
    try:
        lines = _CPU_LIST.read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
