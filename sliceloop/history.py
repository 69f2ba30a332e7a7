"""`sliceloop history`: why retrainings were asked for or not, what the gate said, and what was released."""

from rich.console import Console
from rich.table import Table

from cloud_worker.ledger import Ledger, Rollout
from cloud_worker.lineage import gate_words

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
        columns = ("version", "name", "sha256", "released", "gate", "rollout")
        releases = Table(*columns, title="releases", title_justify="left")
        rollouts = {each.version: each for each in ledger.rollouts()}
        for release in ledger.releases():
            when, why = f"{release.released_at:%F %T}", gate_words(release.gate)
            state = _state(rollouts.get(release.version))
            releases.add_row(str(release.version), release.name, release.sha256[:12], when, why, state)
    for table in (decisions, candidates, releases):
        console.print(table)


def _state(rollout: Rollout | None) -> str:
    if rollout is None:
        return "not rolled out"
    return f"{rollout.state}: {rollout.reason}" if rollout.reason else rollout.state
