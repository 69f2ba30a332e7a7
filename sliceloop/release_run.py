"""`sliceloop release`, `sign`, `withdraw` and `card`: what an engineer does with the release keys."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from securesystemslib.signer import CryptoSigner

from broker.trusted_keys import load_key_set
from cloud_worker.card_facts import card_facts
from cloud_worker.key_chain import KeyChain
from cloud_worker.ledger import Ledger, LedgerUnavailableError, VersionTakenError
from cloud_worker.model_card import model_card
from cloud_worker.object_store import ObjectStore, ObjectStoreUnreachableError, S3Settings
from cloud_worker.release_settings import ReleaseSettings
from cloud_worker.releasing import ReleaseDesk
from protocol.manifest import MANIFEST_MAJOR, Manifest, shown_manifest

log = structlog.get_logger()

WATCH_S = 1.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Places:
    """Where releases are kept, and how they are made."""

    ledger_url: str
    s3: S3Settings
    settings: ReleaseSettings
    trust_folder: Path | None = None
    threshold: int = 1


def release_bundle(places: Places, signers: Sequence[CryptoSigner], bundle: Path, why: str, page: Path | None) -> str:
    """Sign a trained network past the gate; return what is to be said."""
    with _desk(places, signers, makes_bucket=True) as desk:
        manifest = desk.release_bundle(bundle, why, datetime.now(UTC))
        if page is not None:
            page.write_text(_card(desk, manifest.version))
        return _said(desk, manifest)


def release_candidates(places: Places, signers: Sequence[CryptoSigner], page: Path | None, say: Say) -> int:
    """Sign the candidate that waits; return how many were released."""
    with _desk(places, signers) as desk:
        manifests = desk.release_candidates(datetime.now(UTC))
        for manifest in manifests:
            say(_said(desk, manifest))
            if page is not None:
                page.write_text(_card(desk, manifest.version))
    return len(manifests)


def watch_candidates(
    places: Places, signers: Sequence[CryptoSigner], page: Path | None, say: Say, stop: threading.Event
) -> None:
    """Sign each candidate that the gate accepts until the stop, one rollout at a time.

    While an earlier release is on its way or paused, and while ledger or store are away, wait.
    """
    told = ""
    while not stop.is_set():
        try:
            with Ledger(places.ledger_url) as ledger:
                there, waits = bool(ledger.accepted_unreleased()), _on_its_way(ledger)
            if there and not waits:
                release_candidates(places, signers, page, say)
        except (LedgerUnavailableError, ObjectStoreUnreachableError) as error:
            there, waits = True, f"{error}; tried again every {WATCH_S:g} s"
        except VersionTakenError as error:  # another watch was quicker
            log.warning("not signed", reason=str(error), next=f"looked at again in {WATCH_S:g} s")
            waits = ""
        if there and waits and waits != told:
            say(waits)
        told = waits
        stop.wait(WATCH_S)


def _on_its_way(ledger: Ledger) -> str:
    """Say which release a candidate waits for; nothing where none is on its way."""
    newest = ledger.latest_release()
    if newest is None or shown_manifest(newest.envelope).major < MANIFEST_MAJOR:  # of before there were rollouts
        return ""
    states = {each.version: each.state for each in ledger.rollouts()}
    state = states.get(newest.version, "not begun")
    if state not in ("not begun", "running", "paused"):
        return ""
    return (
        f"a candidate waits until the rollout of release {newest.version} has ended: it is {state} (`sliceloop status`)"
    )


def add_signatures(places: Places, signers: Sequence[CryptoSigner], version: int) -> str:
    """Add signatures to a version; return what is to be said."""
    with _desk(places, signers) as desk:
        count = desk.countersign(version)
        newest = [each.envelope for each in desk.ledger.rollbacks() if each.version == version][-1:]
        further = [_further(desk, version, each) for each in (desk.ledger.release(version).envelope, *newest)]
    keys = f"{len(signers)} key{'s' if len(signers) > 1 else ''}"
    strangers = ", ".join(each[:12] for each in desk.strangers())
    unknown = f"; not among the trusted keys, and counts for nothing until `sliceloop keys rotate` adds it: {strangers}"
    said = f"version {version}: {count} manifest{'s' if count > 1 else ''} signed by {keys}"
    return said + (unknown if strangers else "") + max(further)


def withdraw(places: Places, signers: Sequence[CryptoSigner], version: int, why: str, to: int | None) -> str:
    """Withdraw a version; return what is to be said."""
    with _desk(places, signers) as desk:
        back = desk.withdraw(version, why, to, datetime.now(UTC))
        further = _further(desk, back.version, desk.ledger.rollbacks()[-1].envelope) if back is not None else ""
    if back is None:
        return (
            f"version {version} is withdrawn; no earlier one is to go back to: edges that run it read on with it until "
            "the next release"
        )
    left = ", ".join(map(str, back.returns_from))
    return f"version {version} is withdrawn: edges that run {left} go back to version {back.version}{further}"


def write_card(places: Places, version: int, file: Path | None) -> str:
    """Return the model card of a release, or where it was written."""
    with _desk(places, ()) as desk:
        card = _card(desk, version)
    if file is None:
        return card
    file.write_text(card)
    return str(file)


@contextmanager
def _desk(places: Places, signers: Sequence[CryptoSigner], *, makes_bucket: bool = False) -> Iterator[ReleaseDesk]:
    store = ObjectStore(places.s3)
    if makes_bucket:  # nowhere else: a version is withdrawn though the object store is away
        store.ensure_bucket()
    with Ledger(places.ledger_url) as ledger:
        trusted = None
        if places.trust_folder is not None:
            trusted = KeyChain(load_key_set(places.trust_folder, places.threshold), ledger).follow().release
        yield ReleaseDesk(places.settings, store, ledger, signers, trusted)


def _card(desk: ReleaseDesk, version: int) -> str:
    return model_card(card_facts(desk.ledger, desk.store, version))


def _said(desk: ReleaseDesk, manifest: Manifest) -> str:
    deltas = "".join(f", delta {manifest.files[each.file].size:,} bytes" for each in manifest.deltas)
    signed = f"{len(desk.signers)} signature{'s' if len(desk.signers) > 1 else ''}"
    further = _further(desk, manifest.version, desk.ledger.release(manifest.version).envelope)
    said = f"release {manifest.version} of {manifest.name}: sha256 {manifest.model_ref.sha256}, {signed}{deltas}"
    return said + further


def _further(desk: ReleaseDesk, version: int, envelope: bytes) -> str:
    """Say that it begins with a further signature, where it does."""
    waits = desk.waits(envelope)
    return f"; no edge is told yet, it is {waits}: the next key signs by `sliceloop sign {version}`" if waits else ""
