"""A real S3 server and a real PostgreSQL for the session, and ledgers of each test's own."""

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.schema import CreateSchema, DropSchema

from cloud_worker.embedded_postgresql import EmbeddedPostgresql, PostgresqlMissingError, find_programs
from cloud_worker.embedded_s3 import EmbeddedS3
from cloud_worker.ledger import Ledger
from cloud_worker.object_store import ObjectStore, S3Settings

POSTGRESQL_VARIABLE = "SLICELOOP_TEST_POSTGRESQL_URL"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    """SeaweedFS in a process of its own; no test of this fixture may kill it."""
    with EmbeddedS3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_settings(s3_server: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> S3Settings:
    """Settings for the session's server, whose keys are in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.credentials_env().items():
        monkeypatch.setenv(name, value)
    return S3Settings(endpoint_url=s3_server.endpoint_url, bucket="sliceloop-test")


@pytest.fixture
def store(s3_settings: S3Settings) -> ObjectStore:
    """A bucket on the session's server."""
    store = ObjectStore(s3_settings)
    store.ensure_bucket()
    return store


@pytest.fixture
def ledger_url(tmp_path: Path) -> str:
    """A SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """An open, empty ledger in each database."""
    with Ledger(request.getfixturevalue(f"{'ledger' if request.param == 'sqlite' else request.param}_url")) as ledger:
        yield ledger


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The address of the server that the environment names, or else of one of our own."""
    named = os.environ.get(POSTGRESQL_VARIABLE)
    with ExitStack() as stack:
        yield named or stack.enter_context(_own_server(stack)).url


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """A schema of its own on the session's server, dropped after the test."""
    engine, schema = create_engine(postgresql_server), f"sliceloop_test_{secrets.token_hex(6)}"
    with engine.begin() as connection:
        connection.execute(CreateSchema(schema))
    options = {"options": f"-csearch_path={schema} -ctimezone=Asia/Tokyo"}
    yield make_url(postgresql_server).update_query_dict(options).render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(DropSchema(schema, cascade=True))
    engine.dispose()


def _own_server(stack: ExitStack) -> EmbeddedPostgresql:
    try:
        find_programs()
    except PostgresqlMissingError as missing:
        _go_without(str(missing))
    if find_spec("psycopg") is None:
        _go_without("no psycopg: pip install 'sliceloop[postgresql]'")
    # not below pytest's own folder, which the user to whom root drops may not enter
    return EmbeddedPostgresql(Path(stack.enter_context(TemporaryDirectory(prefix="sliceloop-postgresql-"))))


def _go_without(reason: str) -> NoReturn:
    """Skip, but not where everything must be tested."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(f"{reason}; or set {POSTGRESQL_VARIABLE} to postgresql+psycopg://user:password@host/database")
