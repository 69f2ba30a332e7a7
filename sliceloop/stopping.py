"""The one stop event of a process."""

import signal
import threading


def stop_on_signals() -> threading.Event:
    """Return the process's one stop event; SIGTERM and SIGINT set it and do nothing else."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
