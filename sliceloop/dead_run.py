"""`sliceloop dead`: look at messages that could not be taken in, and replay or discard them."""

import threading
import time
import uuid
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from broker.errors import BrokerError
from broker.messages import Outbound
from broker.session import Session
from broker.settings import BrokerSettings
from cloud_worker.ledger import DeadLetter, DeadLetterClosedError, DeadLetterState, Ledger
from cloud_worker.ledger.dead_letters import NUMBERED
from cloud_worker.object_store import ObjectStore, quarantine_key
from protocol.chunks import sha256_of
from protocol.topics import Kind

POLL_S = 0.2


class DeadLetterError(RuntimeError):
    """A dead letter cannot be replayed; the message says why."""


def show_letters(
    ledger_url: str, limit: int, state: DeadLetterState | None, site: str | None, edge: str | None, reason: str
) -> None:
    """Print the newest dead letters that are so."""
    with Ledger(ledger_url) as ledger:
        letters = ledger.dead_letters(limit, state=state, site=site, edge=edge, reason=reason)
    if not letters:
        print("no dead letters")
        return
    now = datetime.now(UTC)
    table = Table("number", "state", "topic", "sequence", "size", "tries", "age", "reason")
    for letter in letters:
        sequence = "" if letter.sequence is None else str(letter.sequence)
        age = str(now - letter.at).partition(".")[0]
        size, tries = f"{letter.size:,}", str(letter.tries)
        table.add_row(str(letter.id), letter.state, letter.topic, sequence, size, tries, age, letter.reason)
    Console(highlight=False, markup=False).print(table)


def show_letter(ledger_url: str, letter_id: int) -> None:
    """Print what is known of one dead letter; its payload may show a patient, and is not printed."""
    with Ledger(ledger_url) as ledger:
        letter = ledger.find_dead_letter(letter_id)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    facts = {
        "state": f"{letter.state} {letter.why}".strip(),
        "topic": letter.topic,
        "reason": letter.reason,
        "at": letter.at.isoformat(),
        "tries": letter.tries,
        "size": f"{letter.size:,} bytes" + ("" if letter.whole else f", {len(letter.payload):,} of them in the ledger"),
        "sha256": letter.sha256,
        "object": quarantine_key(letter.sha256) if letter.kind in NUMBERED else "none: it is in the ledger alone",
        **{f"property {name}": value for name, value in letter.user_properties},
    }
    for name, value in facts.items():
        console.print(f"{name:24} {value}")


def discard(ledger_url: str, letter_id: int, why: str) -> None:
    """Say that nothing more is to come of a dead letter."""
    with Ledger(ledger_url) as ledger:
        ledger.close_dead_letter(letter_id, "discarded", why, datetime.now(UTC))


def replay(ledger_url: str, store: ObjectStore, broker: BrokerSettings, letter_id: int, timeout_s: float) -> bool:
    """Publish a dead letter again, and wait until the ledger has it; False when it could not be taken in once more.

    Raises `DeadLetterError` when it cannot be replayed, or no worker took it in time; then it stays open.
    """
    with Ledger(ledger_url) as ledger:
        letter = ledger.find_dead_letter(letter_id)
        outbound = replayable(letter, store)
        until_s = time.monotonic() + timeout_s
        _publish(outbound, broker, until_s)
        again = _wait_for_worker(ledger, letter, until_s)
        if again is None:
            ledger.close_dead_letter(letter_id, "replayed", "", datetime.now(UTC))
            print(f"dead letter {letter_id} is stored")
            return True
    print(f"dead letter {letter_id} could not be taken in once more (now {again.id}): {again.reason}")
    return False


def replayable(letter: DeadLetter, store: ObjectStore) -> Outbound:
    """Return the message as it was published, whole; raises `DeadLetterError` or `DeadLetterClosedError`."""
    if letter.state != "open":
        raise DeadLetterClosedError(letter.id, letter.state)
    if letter.kind not in NUMBERED:
        raise DeadLetterError(
            f"dead letter {letter.id} is no slice and no original: its sender says such things again by itself, "
            "and an old one could take the place of a new one; discard it"
        )
    if letter.message_id is None:
        raise DeadLetterError(f"dead letter {letter.id} has no message id: no worker will ever take it; discard it")
    payload = letter.payload if letter.whole else store.get(quarantine_key(letter.sha256))
    if sha256_of(payload) != letter.sha256:
        raise DeadLetterError(f"dead letter {letter.id}: what is kept of it has another SHA-256 than what came")
    content_type = dict(letter.user_properties).get("datacontenttype")
    return Outbound(letter.topic, payload, content_type=content_type, user_properties=letter.user_properties)


def _publish(outbound: Outbound, broker: BrokerSettings, until_s: float) -> None:
    with Session(broker, f"dead-{uuid.uuid4().hex[:8]}", clean_start=True) as session:
        while time.monotonic() < until_s:
            if not session.wait_connected(until_s - time.monotonic()):
                break
            try:
                delivery = session.publish(outbound)
            except BrokerError as error:
                raise DeadLetterError(f"not published: {error}") from error
            if delivery.wait(until_s - time.monotonic()):
                return
            if delivery.failed and session.connected:
                raise DeadLetterError(
                    f"the broker refuses it: {delivery.reason}; the broker's access list lets `engineer` replay "
                    "(`sliceloop certificates client DIR engineer`)"
                )
        raise DeadLetterError(f"not published in time: {session.trouble or 'the broker did not take it'}")


def _wait_for_worker(ledger: Ledger, letter: DeadLetter, until_s: float) -> DeadLetter | None:
    """Return the new dead letter, or None when the ledger has the message."""
    assert letter.message_id is not None
    kind, slice_id = Kind(letter.kind or ""), dict(letter.user_properties).get("subject", "")
    never = threading.Event()
    while True:
        if ledger.holds(kind, letter.message_id, slice_id):
            return None
        if (again := ledger.died_again(letter)) is not None:
            return again
        if time.monotonic() > until_s:
            raise DeadLetterError(
                f"dead letter {letter.id} was published, and no worker has taken it yet: does one run? It stays open"
            )
        never.wait(POLL_S)
