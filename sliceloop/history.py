"""`sliceloop history`: why retrainings were asked for or not, what the gate said, and what was released."""

from rich.console import Console
from rich.table import Table

from cloud_worker.ledger import Ledger

SHOWN_DECISIONS = 20


def show_history(ledger_url: str) -> None:
    """Print decisions, candidates and releases, oldest first."""
    console = Console()
    with Ledger(ledger_url) as ledger:
        decisions = Table("at", "fired", "new labels", "reason", title="retrain policy", title_justify="left")
        for decision in ledger.decisions(SHOWN_DECISIONS):
            fired = "yes" if decision.fired else "no"
            decisions.add_row(f"{decision.at:%F %T}", fired, str(decision.new_labels), decision.reason)
        candidates = Table("request", "architecture", "verdict", "reason", title="candidates", title_justify="left")
        for candidate in ledger.candidates():
            row = candidate.request_id[:12], candidate.architecture, candidate.verdict, candidate.reason
            candidates.add_row(*row)
        releases = Table("version", "name", "sha256", "released", "gate", title="releases", title_justify="left")
        for release in ledger.releases():
            gate = release.gate or {}
            why = gate.get("by hand") or "; ".join(gate.get("reasons", ()))
            when = f"{release.released_at:%F %T}"
            releases.add_row(str(release.version), release.name, release.sha256[:12], when, str(why))
    for table in (decisions, candidates, releases):
        console.print(table)
