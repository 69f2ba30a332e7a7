"""A clock that jumps while a process runs."""

import subprocess
import sys
from pathlib import Path

from sliceloop.chaos.clock import set_clock

ASKS = """
import sys, threading, time
from pathlib import Path
from sliceloop.chaos.clock import _acquaint_cbor, follow, set_clock
_acquaint_cbor()
file = Path(sys.argv[1])
follow(file)
import cbor2
from datetime import UTC, datetime
true_s, monotonic_s = time.time(), time.monotonic()
set_clock(file, 3600)
never = threading.Event()
while time.time() < true_s + 3000:
    never.wait(0.01)
now = datetime.now(UTC)
assert abs(now.timestamp() - true_s - 3600) < 30, now
assert isinstance(now, datetime) and cbor2.loads(cbor2.dumps(now)) == now
assert time.monotonic() - monotonic_s < 30
set_clock(file, -3600)
while time.time() > true_s - 3000:
    never.wait(0.01)
print("jumped")
"""


def test_the_wall_clock_jumps_both_ways_and_the_monotonic_clock_goes_on(tmp_path: Path) -> None:
    """A process that follows a file sees an hour ahead, then an hour behind; its times can still be written."""
    file = tmp_path / "clock"
    set_clock(file, 0)
    said = subprocess.run([sys.executable, "-c", ASKS, str(file)], capture_output=True, text=True, timeout=60)
    assert said.stdout.strip() == "jumped", said.stderr
