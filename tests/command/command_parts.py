"""`sliceloop` as a real process, and a ledger with real rows."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from command_here import QUIET, Ended

from cloud_worker.ledger import Ledger
from protocol.labels import Label
from protocol.messages import Disagreement, ModelRef, NetworkReading, SliceRead

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEADLINE_S = 60


def sliceloop(*arguments: object, cwd: Path, env: Mapping[str, str] | None = None) -> Ended:
    """Run the command to its end, on a terminal of 200 columns."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLICELOOP_")}
    done = subprocess.run(
        [sys.executable, "-m", "sliceloop", *map(str, arguments)],
        cwd=cwd,
        env={**clean, **QUIET, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def sha256(text: str) -> str:
    """Return some valid SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()


def reading(label: Label, confidence: float = 0.8, *, uncertain: bool = False) -> NetworkReading:
    """Return a reading of this label."""
    rest = (1 - confidence) / 2
    return NetworkReading(
        label=label,
        uncertain=uncertain,
        probabilities={each: confidence if each is label else rest for each in Label},
        model=ModelRef(name="net", version=1, sha256=sha256("net")),
        latency_ms=12.5,
    )


def store_disagreement(
    ledger: Ledger, slice_id: str, number: int, source: str = "phantom-site-b", *, uncertain: bool = False
) -> None:
    """Store a slice that the edge calls Normal and the second reader COVID-19."""
    first, second = (
        reading(label, 0.45 if uncertain else 0.8, uncertain=uncertain) for label in (Label.NORMAL, Label.COVID_19)
    )
    said = SliceRead(
        slice_id=slice_id,
        boot_id="boot-1",
        sequence=number,
        captured_at=NOW,
        source=source,
        patient_key=sha256("patient"),
        preprocessing_version=1,
        frame_sha256=sha256(f"frame {slice_id}"),
        image=b"\x89PNG....",
        image_sha256=sha256(slice_id),
        reading=first,
    )
    ledger.store_slice(
        message_id=f"message-{slice_id}",
        site="site-b",
        edge="edge-1",
        slice=said,
        image_key=f"slices/{slice_id}.png",
        received_at=NOW,
    )
    reasons = Disagreement(kind="label", reasons=("Normal against COVID-19",))
    ledger.add_second_reading(slice_id, second, reasons, NOW + timedelta(minutes=number))


def newest_labels(url: str) -> dict[str, str]:
    """Return the newest label of each labelled slice."""
    with Ledger(url) as ledger:
        return {each.slice_id: str(each.label) for each in ledger.labelled_slices()}
