"""The dashboard in one line, for logs and pipes."""

from datetime import datetime

from cloud_worker.dashboard.palette import clock
from cloud_worker.dashboard.state import DashboardState
from protocol.labels import LABELS


def summary(state: DashboardState, now: datetime) -> str:
    """Return one plain line; it says "research use only" as every place does that shows readings."""
    counts = state.counts
    online = sum(edge.state == "online" for edge in state.edges.values())
    phantom = " (phantom)" if any(row.phantom for row in state.newest_slices(1)) else ""
    labels = ", ".join(f"{label} {counts[label]}" for label in LABELS)
    return " · ".join(
        (
            f"{clock(now, now)} {_connection(state)} {state.broker}",
            f"{online}/{len(state.edges)} edges online",
            f"{counts['read']} slices{phantom}: {labels}, uncertain {counts['uncertain']}",
            f"{counts['disagreement']} disagreements, {counts['open']} open",
            f"{counts['retrain']} retrainings",
            f"{state.unreadable} unreadable",
            "research use only",
        )
    )


def _connection(state: DashboardState) -> str:
    if state.connected:
        return "connected"
    word = "reconnecting" if state.was_connected else "connecting"
    return f"{word} ({state.trouble})" if state.trouble else word
