"""The commands that make and exchange keys: `sliceloop keys`."""

from pathlib import Path
from typing import Annotated

import typer

from sliceloop.config import read_section

keys_app = typer.Typer(no_args_is_help=True, help="Keys that sign releases and assignments, and keys of outboxes.")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="SLICELOOP_CONFIG", help="TOML file with the settings.")
]


@keys_app.command("new")
def keys_new(folder: Path) -> None:
    """Make two key pairs: signing.pem stays offline, assign.pem goes to the worker, trusted/ to worker and edges."""
    from sliceloop.keys import new_keys

    keys = new_keys(folder)
    typer.echo(f"release key  {keys.signing}  (keep it offline, away from every worker: release.signing_key_files)")
    typer.echo(f"assign key   {keys.assign}  (for the worker: worker.assign_key_file)")
    typer.echo(f"public keys  {keys.trusted}  (copy the folder: edge.trusted_keys_dir, worker.trusted_keys_dir)")


@keys_app.command("rotate")
def keys_rotate(
    new: Annotated[
        Path, typer.Argument(help="Folder as `keys new` makes it; in its trusted/ all keys that shall count.")
    ],
    key: Annotated[
        list[Path] | None, typer.Option(help="Old release keys that sign; default: release.signing_key_files.")
    ] = None,
    new_key: Annotated[
        list[Path] | None, typer.Option(help="New release keys that sign; default: NEW/signing.pem.")
    ] = None,
    threshold: Annotated[
        int | None, typer.Option(min=1, help="How many of the new keys a release needs. Default: as many as before.")
    ] = None,
    envelope: Annotated[
        Path | None, typer.Option(help="Where signatures are gathered, if they are not all at hand.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Exchange the trusted keys: signed by the old and the new ones, followed by worker and edges by themselves."""
    from cloud_worker.release_settings import ReleaseSettings
    from cloud_worker.settings import WorkerSettings
    from cloud_worker.signing_keys import load_signers
    from sliceloop.existing import existing_ledger
    from sliceloop.keys import SIGNING_FILE
    from sliceloop.rotate_run import rotate_keys

    worker = read_section(config, "worker", WorkerSettings)
    existing_ledger(worker.ledger_url, config)
    old = load_signers(key or read_section(config, "release", ReleaseSettings).signing_key_files)
    signers = load_signers(new_key or [new / SIGNING_FILE])
    typer.echo(rotate_keys(worker, new, old, signers, threshold, envelope))


@keys_app.command("outbox")
def keys_outbox(file: Path) -> None:
    """Make the key that encrypts what waits in an edge's outbox; keep a copy of it off the box."""
    from sliceloop.keys import new_outbox_key

    new_outbox_key(file)
    typer.echo(f"outbox key  {file}  (keep a copy off the box: edge.outbox_key_file)")
