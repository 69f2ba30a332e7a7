"""A real S3 server for the session, a real broker and a ledger file for each test."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from worker_parts import Peer, quick

from broker.embedded import EmbeddedBroker
from broker.settings import BrokerSettings
from cloud_worker.embedded_s3 import EmbeddedS3
from cloud_worker.ledger import Ledger
from cloud_worker.object_store import ObjectStore, S3Settings


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    """SeaweedFS in a process of its own; a test that stops it starts it again."""
    with EmbeddedS3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_settings(s3_server: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> S3Settings:
    """The session's server under a prefix of the test's own; its keys are in the environment."""
    return let_in(s3_server, monkeypatch)


@pytest.fixture(scope="module")
def shared_s3_settings(s3_server: EmbeddedS3) -> Iterator[S3Settings]:
    """The session's server for a whole module."""
    with pytest.MonkeyPatch.context() as environment:
        yield let_in(s3_server, environment)


@pytest.fixture(scope="module")
def shared_store(shared_s3_settings: S3Settings) -> ObjectStore:
    """An object store for a whole module."""
    store = ObjectStore(shared_s3_settings)
    store.ensure_bucket()  # makes the client, which keeps its keys
    return store


def let_in(server: EmbeddedS3, environment: pytest.MonkeyPatch) -> S3Settings:
    """Put the server's keys into the environment, and nobody else's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        environment.delenv(name)
    for name, value in server.credentials_env().items():
        environment.setenv(name, value)
    return S3Settings(
        endpoint_url=server.endpoint_url,
        bucket="sliceloop-worker-test",
        prefix=f"{uuid.uuid4().hex[:8]}/",
        connect_timeout_s=1,
        read_timeout_s=5,
        max_attempts=1,
    )


@pytest.fixture
def store(s3_settings: S3Settings) -> ObjectStore:
    """An empty object store."""
    store = ObjectStore(s3_settings)
    store.ensure_bucket()
    return store


@pytest.fixture
def ledger_url(tmp_path: Path) -> str:
    """A SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """An open, empty ledger."""
    with Ledger(ledger_url) as ledger:
        yield ledger


@pytest.fixture
def running_broker() -> Iterator[EmbeddedBroker]:
    """A broker that the test may kill."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def broker_settings(running_broker: EmbeddedBroker) -> BrokerSettings:
    """How to reach the test's broker."""
    return quick(running_broker.port)


@pytest.fixture
def peer(broker_settings: BrokerSettings) -> Iterator[Callable[..., Peer]]:
    """Connect as another participant, subscribed to these filters, until the test ends."""
    connected: list[Peer] = []

    def connect(*filters: str) -> Peer:
        connected.append(Peer(broker_settings, *filters).__enter__())
        return connected[-1]

    yield connect
    for each in connected:
        each.__exit__(None, None, None)
