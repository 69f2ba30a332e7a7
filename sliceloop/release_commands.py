"""The commands of the engineer who holds the release keys: `release`, `sign`, `withdraw`, `card`; and `lineage`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sliceloop.config import read_section
from sliceloop.stopping import stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securesystemslib.signer import CryptoSigner

    from sliceloop.release_run import Places

release_app = typer.Typer()

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="SLICELOOP_CONFIG", help="TOML file with the settings.")
]
KeyOption = Annotated[
    list[Path] | None, typer.Option("--key", help="Release key; may be repeated. Default: release.signing_key_files.")
]
Version = Annotated[int, typer.Argument(min=1, help="Of the release, as `sliceloop status` shows it.")]


@release_app.command()
def release(
    bundle: Annotated[Path | None, typer.Argument(help="Folder that `sliceloop train` wrote.")] = None,
    why: Annotated[str, typer.Option(help="Why this bundle goes out without the gate; kept in the ledger.")] = "",
    candidates: Annotated[bool, typer.Option(help="Sign the candidate that the gate accepted.")] = False,
    watch: Annotated[bool, typer.Option(help="With --candidates: wait for further ones.")] = False,
    page: Annotated[Path | None, typer.Option(help="Write the model card here.")] = None,
    key: KeyOption = None,
    config: ConfigOption = None,
) -> None:
    """Sign a network and enter it as the next release; a running worker rolls it out, ring after ring."""
    from cloud_worker.releasing import sound_bundle
    from sliceloop.release_run import release_bundle, release_candidates, watch_candidates

    _check_wish(bundle, why, candidates, watch, page)
    if bundle is not None:
        sound_bundle(bundle)  # before anything is opened
    places, signers = _places(config) if bundle is not None else _existing_places(config), _signers(key, config)
    if bundle is not None:
        typer.echo(release_bundle(places, signers, bundle, why, page))
    elif watch:
        watch_candidates(places, signers, page, typer.echo, stop_on_signals())
    elif not release_candidates(places, signers, page, typer.echo):
        typer.echo("no candidate waits for a signature")


@release_app.command()
def sign(version: Version, key: KeyOption = None, config: ConfigOption = None) -> None:
    """Add a signature to a release; the worker assigns it when as many keys have signed as are needed."""
    from sliceloop.release_run import add_signatures

    typer.echo(add_signatures(_existing_places(config), _signers(key, config), version))


@release_app.command()
def withdraw(
    version: Version,
    why: Annotated[str, typer.Option(help="Kept in the ledger, and shown by `status`.")],
    to: Annotated[int | None, typer.Option(min=1, help="Go back to this one, and not to the one before.")] = None,
    key: KeyOption = None,
    config: ConfigOption = None,
) -> None:
    """Take a version back everywhere, for good: sign the way back, and never assign it again."""
    from sliceloop.release_run import withdraw as withdraw_version

    typer.echo(withdraw_version(_existing_places(config), _signers(key, config), version, why, to))


@release_app.command()
def card(
    version: Version,
    file: Annotated[Path | None, typer.Argument(help="Write it here.")] = None,
    config: ConfigOption = None,
) -> None:
    """Show a release's model card: data, figures with intervals, gate, limits, signatures."""
    from sliceloop.release_run import write_card

    typer.echo(write_card(_existing_places(config), version, file))


@release_app.command()
def lineage(
    slice_id: Annotated[str | None, typer.Argument(help="The slice's id, or its beginning.")] = None,
    version: Annotated[int | None, typer.Option("--release", min=1, help="What this release was made of.")] = None,
    json: Annotated[bool, typer.Option(help="As JSON.")] = False,
    config: ConfigOption = None,
) -> None:
    """From a reading to network, release, gate, data set and the labels it learnt from; and what a slice taught."""
    from sliceloop.lineage_run import show_release, show_slice

    if (slice_id is None) == (version is None):
        raise typer.BadParameter("give a slice's id, or --release VERSION")
    places = _existing_places(config)
    if slice_id is not None:
        show_slice(places, slice_id, as_json=json)
    elif version is not None:
        show_release(places, version, as_json=json)


def _check_wish(bundle: Path | None, why: str, candidates: bool, watch: bool, page: Path | None) -> None:
    if (bundle is None) != candidates:
        raise typer.BadParameter("give the folder of a bundle, or --candidates")
    if bundle is not None and not why:
        raise typer.BadParameter("a bundle goes out without the gate: say --why")
    if watch and not candidates:
        raise typer.BadParameter("--watch goes with --candidates")
    if page is not None and (page.is_dir() or not page.absolute().parent.is_dir()):
        raise typer.BadParameter(f"--page {page} is no file in a folder that is there")  # before a version is given


def _signers(keys: "Sequence[Path] | None", config: Path | None) -> "tuple[CryptoSigner, ...]":
    from cloud_worker.release_settings import ReleaseSettings
    from cloud_worker.signing_keys import load_signers

    return load_signers(keys or read_section(config, "release", ReleaseSettings).signing_key_files)


def _places(config: Path | None) -> "Places":
    from cloud_worker.object_store import S3Settings
    from cloud_worker.release_settings import ReleaseSettings
    from cloud_worker.settings import WorkerSettings
    from sliceloop.release_run import Places

    worker = read_section(config, "worker", WorkerSettings)
    s3, settings = read_section(config, "s3", S3Settings), read_section(config, "release", ReleaseSettings)
    return Places(worker.ledger_url, s3, settings, worker.trusted_keys_dir, worker.trusted_threshold)


def _existing_places(config: Path | None) -> "Places":
    from sliceloop.existing import existing_ledger

    places = _places(config)
    existing_ledger(places.ledger_url, config)
    return places
