"""`sliceloop` as its process runs it, in the process of the test: a start costs more than a second."""

import io
import os
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from sliceloop.cli import main

QUIET = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
"""A terminal of 200 columns without colours."""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def run_here(*arguments: object, cwd: Path, env: Mapping[str, str] | None = None) -> Ended:
    """Run the command to its end; folder, environment, warnings and log are afterwards as they were."""
    out, err, log = io.StringIO(), io.StringIO(), structlog.get_config()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["sliceloop", *map(str, arguments)])
        patch.setattr(sys, "stdin", io.StringIO())
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        for name in [name for name in os.environ if name.startswith("SLICELOOP_")]:
            patch.delenv(name)
        for name, value in {**QUIET, **(env or {})}.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
    structlog.configure(**log)
    return Ended(int(ended.value.code or 0), out.getvalue(), err.getvalue())
