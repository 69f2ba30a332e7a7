"""The commands of the engineer who watches the fleet: `status`, `pin`, `pause`, `resume`."""

from pathlib import Path
from typing import Annotated

import typer

from sliceloop.config import read_section

rollout_app = typer.Typer()

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="SLICELOOP_CONFIG", help="TOML file with the settings.")
]
Version = Annotated[int, typer.Argument(min=1, help="Of the release, as `sliceloop status` shows it.")]


@rollout_app.command()
def status(
    json: Annotated[bool, typer.Option(help="As JSON.")] = False,
    config: ConfigOption = None,
) -> None:
    """Show releases, the rollout by ring, and every edge: what it runs, how far it is, and who is stuck and why."""
    from cloud_worker.settings import WorkerSettings
    from sliceloop.status_run import show_status

    show_status(_ledger_url(config), read_section(config, "worker", WorkerSettings).rollout, as_json=json)


@rollout_app.command()
def pin(
    edge: Annotated[str, typer.Argument(help="SITE/EDGE")],
    version: Annotated[int | None, typer.Argument(min=1, help="Which it shall run, whatever is rolled out.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Let it follow the rollouts again.")] = False,
    config: ConfigOption = None,
) -> None:
    """Keep one edge on a version; it leaves every rollout."""
    from sliceloop.rollout_run import pin_edge, unpin_edge

    if (version is None) != off:
        raise typer.BadParameter("give a version, or --off")
    url = _ledger_url(config)
    typer.echo(unpin_edge(url, edge) if version is None else pin_edge(url, edge, version))


@rollout_app.command()
def pause(version: Version, config: ConfigOption = None) -> None:
    """Tell no further edge of a version; those that were told go on."""
    from sliceloop.rollout_run import pause_rollout

    typer.echo(pause_rollout(_ledger_url(config), version))


@rollout_app.command()
def resume(version: Version, config: ConfigOption = None) -> None:
    """Go on with a paused rollout; its ring's time begins anew."""
    from sliceloop.rollout_run import resume_rollout

    typer.echo(resume_rollout(_ledger_url(config), version))


def _ledger_url(config: Path | None) -> str:
    from cloud_worker.settings import WorkerSettings
    from sliceloop.existing import existing_ledger

    return existing_ledger(read_section(config, "worker", WorkerSettings).ledger_url, config)
