"""Dead letters in both databases: whose they are, what became of them, and those of an older ledger."""

from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from cloud_worker.ledger import DeadLetterClosedError, Ledger, UnknownDeadLetterError
from protocol.codec import EventContext, encode
from protocol.messages import Status
from protocol.topics import Kind, cloud_topic, edge_topic

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
SLICES = edge_topic("site-a", "edge-1", Kind.SLICE)
STATUS = Status(state="online", boot_id="b", at=NOW, software="test")


def properties(message_id: str, sequence: int = 0) -> tuple[tuple[str, str], ...]:
    return encode(STATUS, EventContext(message_id, "/edges", NOW, sequence=sequence)).user_properties


def test_a_letter_says_whose_it_is(ledger: Ledger) -> None:
    """Site, edge, kind, id and number are taken from topic and user properties, which come back as they came."""
    said = properties("m-1", 7)
    ledger.dead_letter(SLICES, b"garbage", "no slice", NOW, said)
    (letter,) = ledger.dead_letters()
    assert (letter.site, letter.edge, letter.kind) == ("site-a", "edge-1", "slice")
    assert (letter.message_id, letter.sequence, letter.user_properties) == ("m-1", 7, said)
    assert (letter.state, letter.tries, letter.why, letter.closed_at) == ("open", 1, "", None)


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("foreign", ()),
        (cloud_topic(Kind.RETRAIN_STATUS), (("id", "spaces are no id"), ("sequence", "minus one"))),
        (SLICES, (("id", "\0\ud800"), ("sequence", "9" * 100), ("id", ""))),
    ],
)
def test_a_letter_that_does_not_say_whose_it_is_is_kept(
    ledger: Ledger, topic: str, said: tuple[tuple[str, str], ...]
) -> None:
    """A foreign topic and properties of any kind are no reason to lose a letter."""
    ledger.dead_letter(topic, b"garbage", "reason", NOW, said)
    (letter,) = ledger.dead_letters()
    assert (letter.message_id, letter.sequence) == (None, None)
    assert len(letter.user_properties) == len(said)


def test_the_same_message_again_is_one_letter(ledger: Ledger) -> None:
    """A message that comes again until its receipt is one letter, tried so many times, with the newest reason."""
    for number, reason in enumerate(("first", "second", "third")):
        ledger.dead_letter(SLICES, b"garbage", reason, NOW + number * SECOND, properties("m-1"))
    (letter,) = ledger.dead_letters()
    assert (letter.tries, letter.reason, letter.at) == (3, "third", NOW + 2 * SECOND)
    ledger.dead_letter(SLICES, b"other bytes", "reason", NOW, properties("m-1"))
    ledger.dead_letter(SLICES, b"garbage", "reason", NOW)
    assert len(ledger.dead_letters()) == 3


def test_letters_are_found_by_what_they_are(ledger: Ledger) -> None:
    """State, site, edge and a part of the reason choose; a wildcard in the reason is none."""
    other = edge_topic("site-b", "edge-1", Kind.SLICE)
    for topic, reason in ((SLICES, "Unknown schema 2"), (SLICES, "100 % garbage"), (other, "unknown schema 3")):
        ledger.dead_letter(topic, reason.encode(), reason, NOW)
    first, second, third = reversed(ledger.dead_letters())
    assert ledger.dead_letters(reason="unknown SCHEMA") == [third, first]
    assert ledger.dead_letters(reason="%") == [second]
    assert ledger.dead_letters(site="site-b", edge="edge-1") == [third]
    ledger.close_dead_letter(third.id, "discarded", "a test", NOW)
    assert ledger.dead_letters(state="open") == [second, first]
    assert [letter.why for letter in ledger.dead_letters(state="discarded")] == ["a test"]


def test_a_letter_is_closed_once(ledger: Ledger) -> None:
    """What was replayed or discarded stays so; the same message dying again is a letter of its own."""
    ledger.dead_letter(SLICES, b"garbage", "reason", NOW, properties("m-1"))
    (letter,) = ledger.dead_letters()
    assert ledger.died_again(letter) is None
    ledger.close_dead_letter(letter.id, "replayed", "", NOW)
    with pytest.raises(DeadLetterClosedError, match="is replayed already"):
        ledger.close_dead_letter(letter.id, "discarded", "", NOW)
    with pytest.raises(UnknownDeadLetterError):
        ledger.close_dead_letter(letter.id + 1, "discarded", "", NOW)
    ledger.dead_letter(SLICES, b"garbage", "reason", NOW, properties("m-1"))
    again = ledger.died_again(letter)
    assert again is not None
    assert again.id != letter.id


@pytest.mark.parametrize("database", ["ledger_url", "postgresql_url"])
def test_letters_of_an_older_ledger_stay(request: pytest.FixtureRequest, database: str) -> None:
    """A ledger of the first revision is migrated with its letters, which are open and do not say whose they are."""
    url = request.getfixturevalue(database)
    engine, config = create_engine(url), Config()
    config.set_main_option("script_location", "cloud_worker:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        insert = (
            "INSERT INTO dead_letters (at, topic, reason, sha256, size, payload) VALUES (:at, 't', 'r', 'h', 1, :p)"
        )
        connection.execute(text(insert), {"at": "2026-03-01 12:00:00.000000+00", "p": b"x"})
    with Ledger(url) as ledger:
        (letter,) = ledger.dead_letters()
        assert (letter.topic, letter.payload, letter.state, letter.user_properties) == ("t", b"x", "open", ())
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        assert connection.execute(text("SELECT topic FROM dead_letters")).all() == [("t",)]
    engine.dispose()
