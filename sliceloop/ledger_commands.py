"""The commands of the engineer who answers for the ledger: `audit`, and `dead`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from broker.settings import BrokerSettings
from sliceloop.config import read_section

audit_app = typer.Typer()
dead_app = typer.Typer(no_args_is_help=True, help="Messages that could not be taken in.")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="SLICELOOP_CONFIG", help="TOML file with the settings.")
]
Letter = Annotated[int, typer.Argument(help="Its number, as `dead list` shows it.")]


@audit_app.command()
def audit(
    config: ConfigOption = None,
    site: Annotated[str | None, typer.Option(help="This site alone.")] = None,
    edge: Annotated[str | None, typer.Option(help="This edge alone.")] = None,
    since: Annotated[str | None, typer.Option(help="Slices captured from then on: 2026-03-01T12:00+01:00.")] = None,
    until: Annotated[str | None, typer.Option(help="Slices captured before; times without zone are UTC.")] = None,
    edge_data: Annotated[
        list[str] | None,
        typer.Option(help="An edge's data folder, asked instead of its last status: DIR or SITE/EDGE=DIR; repeatable."),
    ] = None,
    outbox_key: Annotated[Path | None, typer.Option(help="The edge.outbox_key_file of these folders.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write all that was found here.")] = None,
    objects: Annotated[bool, typer.Option(help="Read every object back, and compare its SHA-256.")] = False,
) -> None:
    """Account for every slice that the edges numbered; ends with 1 when one is lost, doubled or not what it was."""
    from cloud_worker.ledger import Period
    from cloud_worker.object_store import ObjectStore, S3Settings
    from sliceloop.audit_run import AuditRequest, run_audit

    period = Period(_moment("--since", since), _moment("--until", until))
    request = AuditRequest(site, edge, period, tuple(edge_data or ()), outbox_key, json)
    store = ObjectStore(read_section(config, "s3", S3Settings)) if objects else None
    raise typer.Exit(run_audit(request, _ledger_url(config), store))


@dead_app.command("list")
def dead_list(
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    state: Annotated[Literal["open", "replayed", "discarded", "all"], typer.Option()] = "open",
    site: Annotated[str | None, typer.Option(help="Of this site alone.")] = None,
    edge: Annotated[str | None, typer.Option(help="Of this edge alone.")] = None,
    reason: Annotated[str, typer.Option(help="With this in its reason.")] = "",
) -> None:
    """List the newest, with reason, size, tries and age."""
    from sliceloop.dead_run import show_letters

    show_letters(_ledger_url(config), limit, None if state == "all" else state, site, edge, reason)


@dead_app.command("show")
def dead_show(letter: Letter, config: ConfigOption = None) -> None:
    """Show one: reason, hash, user properties, and where its payload is kept; never the payload."""
    from sliceloop.dead_run import show_letter

    show_letter(_ledger_url(config), letter)


@dead_app.command("replay")
def dead_replay(
    letter: Letter,
    config: ConfigOption = None,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="How long a worker may take.")] = 30.0,
) -> None:
    """Publish one again, as after an update of the worker; ends with 1 when it could not be taken in once more."""
    from cloud_worker.object_store import ObjectStore, S3Settings
    from sliceloop.dead_run import replay

    store = ObjectStore(read_section(config, "s3", S3Settings))
    broker = read_section(config, "broker", BrokerSettings)
    raise typer.Exit(0 if replay(_ledger_url(config), store, broker, letter, timeout_s) else 1)


@dead_app.command("discard")
def dead_discard(
    letter: Letter,
    why: Annotated[str, typer.Option(help="Why nothing more is to come of it; kept in the ledger.")],
    config: ConfigOption = None,
) -> None:
    """Close one without replaying it; audits count its number as refused."""
    from sliceloop.dead_run import discard

    discard(_ledger_url(config), letter, why)
    typer.echo(f"dead letter {letter} is discarded")


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time; write 2026-03-01 or 2026-03-01T12:00+01:00", param_hint=option
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _ledger_url(config: Path | None) -> str:
    from cloud_worker.settings import WorkerSettings
    from sliceloop.existing import existing_ledger

    return existing_ledger(read_section(config, "worker", WorkerSettings).ledger_url, config)
