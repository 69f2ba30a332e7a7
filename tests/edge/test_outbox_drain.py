"""A hundred thousand waiting slices go out with flat memory, at a pace that does not depend on how many wait."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from outbox_parts import fill, outbox_at
from test_publisher import Broker, publisher_of

from edge_agent.outbox.schema import checksum

WAITING = 100_000
SLACK_KB = 20_000


def resident_kb() -> int:
    """Return how much memory this process uses."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def fill_at_once(path: Path, count: int) -> None:
    """Let so many rows wait, in one transaction: what one add writes, multiplied."""
    with outbox_at(path) as outbox:
        fill(outbox, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.create_function("checksum", 4, checksum)
        database.executescript(
            f"""
            BEGIN;
            WITH RECURSIVE numbers(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})
            INSERT INTO messages
            SELECT n, 's' || n, kind, payload, content_type, replace(user_properties, 's1', 's' || n)
            FROM numbers, messages WHERE position = 1;
            INSERT INTO queue
            SELECT m.position, m.message_id, m.kind, m.position, m.position % 100, -(m.position % 100), size, added_at,
            checksum(m.position, content_type, CAST(user_properties AS BLOB), payload), sealed, held
            FROM messages AS m, queue AS q WHERE q.position = 1 AND m.position > 1;
            UPDATE counters SET value = {count} WHERE name IN ('rows', 'sequence');
            UPDATE counters SET value = value * {count} WHERE name = 'bytes';
            COMMIT;
            """
        )


def test_a_hundred_thousand_slices_drain_with_flat_memory(tmp_path: Path) -> None:
    """All go out once each, memory stays, the last thousands are as fast as the first, and the file gets small."""
    path, broker = tmp_path / "o", Broker()
    fill_at_once(path, WAITING)
    with outbox_at(path, max_rows=WAITING, max_bytes=10**9) as outbox:
        publisher = publisher_of(outbox, broker, window=50)
        started_kb, seconds, sent = 0, list[float](), set[str]()
        while outbox.depth():
            began_s = time.perf_counter()
            publisher.step(0.0)
            broker.puback()
            names = broker.take()
            assert names
            assert not sent & set(names)
            sent.update(names)
            publisher.receipt(names)
            publisher.settle(0.0)
            seconds.append(time.perf_counter() - began_s)
            started_kb = started_kb or resident_kb()
        assert len(sent) == WAITING
        assert resident_kb() - started_kb < SLACK_KB
        half = len(seconds) // 2
        assert sum(seconds[half:]) < 3 * sum(seconds[:half])
        assert outbox.waiting_ranges(9) == ()
        size = path.stat().st_size
        outbox.tidy()
        assert size > 16_000_000 > path.stat().st_size
