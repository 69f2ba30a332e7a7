"""What the parts do alone, with the same payloads and at the same parallelism: no pipeline of them can be faster."""

import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from pydantic import BaseModel, ConfigDict

from cloud_worker.object_store import ObjectStore
from protocol.chunks import sha256_of
from sliceloop.pipeline.bare_paho import publish_all
from sliceloop.pipeline.stage import Stage


class Floors(BaseModel):
    """Payloads a second."""

    model_config = ConfigDict(frozen=True)

    paho_pair_per_s: float
    boto3_put_per_s: float
    our_put_per_s: float
    """By the worker's own client, which is obstore."""
    sqlite_commit_per_s: float

    @property
    def slowest_per_s(self) -> float:
        """Return the slowest of the three that the pipeline is measured against; our own client is none of them."""
        return min(self.paho_pair_per_s, self.boto3_put_per_s, self.sqlite_commit_per_s)


def measure_floors(stage: Stage, make: Callable[[int], Sequence[bytes]], n: int, parallel: int) -> Floors:
    """Measure each part with n payloads of its own; `make` gives payloads that were not given before."""
    return Floors(
        paho_pair_per_s=n / publish_all(stage.broker.port, make(n), parallel),
        boto3_put_per_s=n / _boto3_puts(stage, make(n), parallel),
        our_put_per_s=n / _our_puts(stage, make(n), parallel),
        sqlite_commit_per_s=n / _commits(stage.folder / "floor", make(n), parallel),
    )


def _boto3_puts(stage: Stage, payloads: Sequence[bytes], threads: int) -> float:
    client = _bare_client(stage, threads)

    def put(payload: bytes) -> None:
        client.put_object(
            Bucket=stage.s3.bucket,
            Key=f"floor/{sha256_of(payload)}",
            Body=payload,
            ContentType="image/png",
            IfNoneMatch="*",
        )

    return _timed(put, payloads, threads)


def _bare_client(stage: Stage, threads: int) -> Any:
    return boto3.session.Session().client(
        "s3",
        endpoint_url=stage.s3.endpoint_url,
        region_name=stage.s3.region,
        config=Config(
            max_pool_connections=threads,
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
        ),
    )


def _our_puts(stage: Stage, payloads: Sequence[bytes], threads: int) -> float:
    store = ObjectStore(stage.s3)
    return _timed(lambda payload: store.put(f"floor/{sha256_of(payload)}", payload, "image/png"), payloads, threads)


def _timed(put: Callable[[bytes], None], payloads: Sequence[bytes], threads: int) -> float:
    """Return how long all puts take, once each thread has a connection."""
    with ThreadPoolExecutor(threads, "floor") as pool:
        list(pool.map(put, [b"warm up %d" % number for number in range(threads)]))
        begun_s = time.monotonic()
        list(pool.map(put, payloads))
        return time.monotonic() - begun_s


def _commits(folder: Path, payloads: Sequence[bytes], files: int) -> float:
    """Insert each payload in a transaction of its own, fsync included, into so many files at once."""
    folder.mkdir(exist_ok=True)
    shares = [payloads[number::files] for number in range(files)]
    with ThreadPoolExecutor(files, "floor") as pool:
        begun_s = time.monotonic()
        list(pool.map(_commit_all, [folder / f"{time.monotonic_ns()}-{n}.sqlite" for n in range(files)], shares))
        return time.monotonic() - begun_s


def _commit_all(path: Path, payloads: Sequence[bytes]) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE bytes (payload BLOB)")
    for payload in payloads:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO bytes VALUES (?)", (payload,))
        connection.execute("COMMIT")
    connection.close()
