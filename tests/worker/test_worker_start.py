"""A worker that cannot work says what to do; one that waits goes on by itself; one whose thread fails ends."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from structlog.testing import capture_logs
from worker_parts import (
    EDGE,
    SITE,
    Peer,
    add_labelled,
    cohort,
    network,
    network_file,
    outbound,
    quick,
    receipt_for,
    slice_read,
)

from broker.embedded import EmbeddedBroker, free_port
from broker.settings import BrokerSettings
from broker.supervised import SupervisedThread
from cloud_worker.app import run_worker
from cloud_worker.embedded_postgresql import EmbeddedPostgresql, PostgresqlMissingError, find_programs
from cloud_worker.embedded_s3 import EmbeddedS3
from cloud_worker.ledger import Ledger, LedgerUnavailableError
from cloud_worker.object_store import BucketDeniedError, ObjectStore, S3Settings
from cloud_worker.settings import WorkerSettings
from cloud_worker.signing_keys import SigningKeyError, load_signer
from sliceloop.keys import new_keys
from training.bundle import BundleError

RECEIPTS = f"sliceloop/v1/{SITE}/{EDGE}/receipt"


def pem(key: Any, password: bytes = b"") -> bytes:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


@pytest.fixture
def settings(ledger_url: str) -> WorkerSettings:
    return WorkerSettings(ledger_url=ledger_url, store_retry_s=0.05)


def start(settings: WorkerSettings, s3: S3Settings) -> None:
    """Start a worker with a broker that is not there; it must not come so far."""
    run_worker(settings, s3, BrokerSettings(port=free_port()), threading.Event())


KEYS = {
    "missing": None,
    "garbage": b"\x00garbage",
    "another kind of key": pem(ec.generate_private_key(ec.SECP256R1())),
    "a key with a password": pem(ed25519.Ed25519PrivateKey.generate(), b"secret"),
    "a public key": ed25519.Ed25519PrivateKey.generate()
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
}


@pytest.mark.parametrize("content", KEYS.values(), ids=KEYS)
def test_a_signing_key_that_is_none_is_named(
    tmp_path: Path, settings: WorkerSettings, s3_settings: S3Settings, content: bytes | None
) -> None:
    """A key to assign by that is missing or none of ours stops the start; the message says how to make one."""
    key = tmp_path / "assign.pem"
    if content is not None:
        key.write_bytes(content)
    keyed = settings.model_copy(update={"assign_key_file": key, "trusted_keys_dir": tmp_path})
    with pytest.raises(SigningKeyError) as refused:
        start(keyed, s3_settings)
    assert str(key) in str(refused.value)
    assert "sliceloop keys new" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_signing_key_that_others_can_read_is_told_of(tmp_path: Path) -> None:
    """It signs all the same: a secret that a container is given may be readable by all in it."""
    key = new_keys(tmp_path / "keys").assign
    for mode, told in ((0o600, 0), (0o644, 1)):
        key.chmod(mode)
        with capture_logs() as logs:
            load_signer(key)
        assert [entry["next"] for entry in logs] == [f"chmod 600 {key}"] * told


def broken_folders(folder: Path) -> dict[str, Path]:
    """Return folders that hold no second reader."""
    garbage = network_file(folder / "garbage", b"no network")
    unreported = network_file(folder / "unreported", network())
    (unreported / "report.json").write_text('{"architecture": 7}')
    (folder / "file").write_text("no folder")
    return {"missing": folder / "nothing", "garbage": garbage, "unreported": unreported, "file": folder / "file"}


@pytest.mark.parametrize("fault", ["missing", "garbage", "unreported", "file"])
def test_a_second_reader_that_is_none_is_named(
    tmp_path: Path, settings: WorkerSettings, s3_settings: S3Settings, fault: str
) -> None:
    """A second reader's folder without a network of ours stops the start, and the message names the folder."""
    folder = broken_folders(tmp_path)[fault]
    with pytest.raises(BundleError) as refused:
        start(settings.model_copy(update={"second_reader_dir": folder}), s3_settings)
    assert str(folder) in str(refused.value)


def test_a_ledger_that_cannot_be_opened_is_named(
    tmp_path: Path, settings: WorkerSettings, s3_settings: S3Settings
) -> None:
    """A ledger whose folder is not there stops the start; the message names it and says what to check."""
    url = f"sqlite:///{tmp_path / 'nowhere' / 'ledger.sqlite'}"
    with pytest.raises(LedgerUnavailableError, match="check that it runs, that its folder exists") as refused:
        start(settings.model_copy(update={"ledger_url": url}), s3_settings)
    assert url in str(refused.value)


@pytest.mark.parametrize("secret", [None, "wrong"])
def test_an_object_store_that_lets_nobody_in_is_named(
    tmp_path: Path,
    settings: WorkerSettings,
    s3_settings: S3Settings,
    monkeypatch: pytest.MonkeyPatch,
    secret: str | None,
) -> None:
    """Without keys, and with wrong ones, the start stops; the message says which variables to set."""
    nothing = str(tmp_path / "nothing")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, nothing)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        if secret is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, secret)
    with pytest.raises(BucketDeniedError, match="check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        start(settings, s3_settings)


@contextmanager
def running(settings: WorkerSettings, s3: S3Settings, broker: BrokerSettings) -> Iterator[None]:
    stop = threading.Event()
    with SupervisedThread("worker", lambda: run_worker(settings, s3, broker, stop), stop):
        yield


def test_a_worker_waits_for_its_store_and_its_broker(
    settings: WorkerSettings, s3_settings: S3Settings, s3_server: EmbeddedS3
) -> None:
    """Started before S3 and broker, a worker stores and receipts as soon as both are there."""
    port = free_port()
    s3_server.kill()
    try:
        stack = ExitStack()
        stack.enter_context(running(settings, s3_settings, quick(port)))
    finally:
        s3_server.start()
    with stack, EmbeddedBroker(port), Peer(quick(port), RECEIPTS) as edge:
        edge.ask(outbound(slice_read(1), "m-1"), receipt_for("m-1"))


def test_a_worker_waits_for_its_database(
    settings: WorkerSettings, s3_settings: S3Settings, broker_settings: BrokerSettings
) -> None:
    """Started before its PostgreSQL server, a worker stores and receipts as soon as that is there; so after kill -9."""
    if not os.environ.get("CI"):
        pytest.importorskip("psycopg", reason="no psycopg: pip install 'sliceloop[postgresql]'")
        _skip_without_postgresql()
    with TemporaryDirectory(prefix="sliceloop-postgresql-") as folder, EmbeddedPostgresql(Path(folder)) as server:
        server.stop()
        waiting = settings.model_copy(update={"ledger_url": server.url})
        with running(waiting, s3_settings, broker_settings), Peer(broker_settings, RECEIPTS) as edge:
            server.start()
            edge.ask(outbound(slice_read(1), "m-1"), receipt_for("m-1"))
            server.kill()
            server.start()
            edge.ask(outbound(slice_read(2), "m-2"), receipt_for("m-2"))
        with Ledger(server.url) as ledger:
            assert ledger.counts()["slices"] == 2


def _skip_without_postgresql() -> None:
    try:
        find_programs()
    except PostgresqlMissingError as missing:
        pytest.skip(str(missing))


def test_a_worker_that_waits_for_its_store_can_be_stopped(settings: WorkerSettings, s3_settings: S3Settings) -> None:
    """While S3 is away at the start, a stop ends the worker at once."""
    away = s3_settings.model_copy(update={"endpoint_url": f"http://127.0.0.1:{free_port()}"})
    stop = threading.Event()
    with SupervisedThread("worker", lambda: run_worker(settings, away, quick(free_port()), stop), stop) as thread:
        stop.set()
    assert thread is not None
    assert "worker" not in {each.name for each in threading.enumerate()}


@pytest.mark.e2e
def test_a_failed_thread_ends_the_process(
    tmp_path: Path, store: ObjectStore, s3_settings: S3Settings, ledger_url: str, broker_settings: BrokerSettings
) -> None:
    """When a thread fails, here over a reading that was damaged by hand, the process ends with a non-zero code."""
    with Ledger(ledger_url) as ledger:
        add_labelled(store, ledger, cohort(1))
    with sqlite3.connect(ledger_url.removeprefix("sqlite:///")) as damaged:
        damaged.execute("UPDATE readings SET label = 'Nonsense'")
    ended = subprocess.run(
        [sys.executable, "-m", "sliceloop", "worker"],
        env={**os.environ, **variables(s3_settings, broker_settings, ledger_url)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert ended.returncode != 0
    assert ended.stderr.rstrip().splitlines()[-1].startswith("sliceloop: worker-desk failed")


@pytest.mark.e2e
def test_what_stops_the_command_is_said_in_one_line(
    tmp_path: Path, s3_settings: S3Settings, ledger_url: str, broker_settings: BrokerSettings
) -> None:
    """`sliceloop worker` with a folder that holds no second reader ends with a line that says so, and no traceback."""
    environment = variables(s3_settings, broker_settings, ledger_url)
    environment["SLICELOOP_WORKER__SECOND_READER_DIR"] = str(tmp_path / "nothing")
    ended = subprocess.run(
        [sys.executable, "-m", "sliceloop", "worker"],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "train one with `sliceloop train`" in ended.stderr


def variables(s3: S3Settings, broker: BrokerSettings, ledger_url: str) -> dict[str, str]:
    """Return the settings of a worker as environment variables."""
    return {
        "SLICELOOP_WORKER__LEDGER_URL": ledger_url,
        "SLICELOOP_S3__ENDPOINT_URL": str(s3.endpoint_url),
        "SLICELOOP_S3__BUCKET": s3.bucket,
        "SLICELOOP_S3__PREFIX": s3.prefix,
        "SLICELOOP_BROKER__PORT": str(broker.port),
    }
