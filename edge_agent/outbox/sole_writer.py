"""One process writes an outbox; a lock on a file beside it says which."""

import fcntl
import time
from pathlib import Path
from typing import BinaryIO

LOCK_POLL_S = 0.05


def locked(path: Path, wait_s: float) -> BinaryIO | None:
    """Lock the file, to its closing or the end of the process; None where another process has it for so long.

    A POSIX lock: it keeps off other processes, not other threads.
    """
    lock = path.open("ab")
    until_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= until_s:
                lock.close()
                return None
            time.sleep(LOCK_POLL_S)
        else:
            return lock
