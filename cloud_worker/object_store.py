"""The object store: slices, frames, models and data sets in S3; the one file that imports boto3."""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError, ProfileNotFound
from pydantic import BaseModel, ConfigDict, Field

from cloud_worker.quick_objects import QuickObjects

DENIED_CODES = frozenset(
    {"403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
)
MISSING_CODES = frozenset({"404", "NoSuchKey", "NotFound"})
FRAME_SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "application/dicom": "dcm"}
MAX_NAME_LENGTH = 100
MAX_CLOCK_SKEW_S = 600.0
"""S3 refuses signatures of clocks that are 15 minutes off; a refused HEAD does not say why."""
QUICK_BYTES = 1024 * 1024
"""Larger objects are few, and boto3 gives each part of them the time that a slow line needs."""


class S3Settings(BaseModel):
    """Where the objects are; the keys come by the usual AWS chain (environment, profile, role), never from here."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    endpoint_url: str | None = None
    """None is AWS itself."""
    presign_endpoint_url: str | None = None
    """The address under which trainers reach the store, where it differs from ours."""
    region: str = "us-east-1"
    """Of the bucket."""
    bucket: str = Field(default="sliceloop", min_length=3, max_length=63)
    """Made when it is missing and the keys allow it."""
    prefix: str = Field(default="", pattern=r"^([A-Za-z0-9_.-]+/)*$")
    """Put before every key, ends in `/`."""
    presign_expiry_s: int = Field(default=6 * 3600, ge=1, le=7 * 24 * 3600)
    """How long a trainer may use the addresses of a request."""
    connect_timeout_s: float = Field(default=2, gt=0)
    """For a connection."""
    read_timeout_s: float = Field(default=10, gt=0)
    """For an answer."""
    max_attempts: int = Field(default=3, ge=1, le=10)
    """Tries of one request before it counts as failed."""
    max_connections: int = Field(default=16, ge=1)
    """Connections kept open."""


class ObjectStoreError(Exception):
    """Anything that the object store raises."""


class ObjectStoreUnreachableError(ObjectStoreError):
    """The server does not answer, or answers that it cannot just now: trying later may help."""

    def __init__(self, endpoint: str, reason: str) -> None:
        """Remember the endpoint and the reason."""
        super().__init__(f"object store {endpoint}: {reason}; check that it runs and that S3 endpoint_url is right")
        self.endpoint, self.reason = endpoint, reason


class ObjectMissingError(ObjectStoreError):
    """There is no object of this key."""

    def __init__(self, bucket: str, key: str) -> None:
        """Remember the bucket and the key."""
        super().__init__(f"no object {key} in bucket {bucket}")
        self.bucket, self.key = bucket, key


class BucketMissingError(ObjectStoreError):
    """There is no bucket of this name."""

    def __init__(self, bucket: str, endpoint: str) -> None:
        """Remember the bucket and the endpoint."""
        super().__init__(f"no bucket {bucket} at {endpoint}: create it, or set S3 bucket to one that exists")
        self.bucket, self.endpoint = bucket, endpoint


class BucketDeniedError(ObjectStoreError):
    """The keys are missing or wrong, or may not do this in the bucket."""

    def __init__(self, bucket: str, endpoint: str, reason: str) -> None:
        """Remember the bucket, the endpoint and the reason."""
        super().__init__(
            f"bucket {bucket} at {endpoint} denied: {reason}; "
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile) and the bucket's policy"
        )
        self.bucket, self.endpoint, self.reason = bucket, endpoint, reason


class ObjectRefusedError(ObjectStoreError):
    """The server refuses the request itself: trying again does not help."""

    def __init__(self, endpoint: str, code: str, reason: str) -> None:
        """Remember the endpoint, S3's error code and its reason."""
        super().__init__(f"object store {endpoint} refuses: {code}: {reason}")
        self.endpoint, self.code, self.reason = endpoint, code, reason


OUTAGES = (ObjectStoreUnreachableError, BucketMissingError, BucketDeniedError)
"""What time or an engineer mends, and nothing that was asked for can: wait, and say so."""


class ObjectStore:
    """A bucket; thread-safe, made on first use, because a constructor only remembers."""

    def __init__(self, settings: S3Settings) -> None:
        """Remember the settings."""
        self._settings = settings
        self._endpoint = settings.endpoint_url or f"AWS S3 in {settings.region}"
        self._clients: dict[str | None, Any] = {}
        self._quick: QuickObjects | None = None
        self._making = threading.Lock()

    def ensure_bucket(self) -> None:
        """Create the bucket unless it is there."""
        try:
            self.check()
        except BucketMissingError:
            self._create_bucket()

    def check(self) -> None:
        """Raise the error that names why the bucket cannot be used; do nothing when it can."""
        with self._faults_named():
            self._client().head_bucket(Bucket=self._settings.bucket)

    def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store the bytes unless the key is there: keys are content hashes, so that one is the same object."""
        if len(data) <= QUICK_BYTES:
            with self._faults_named(key):
                quick = self._quick_objects()
            if quick is not None and quick.put(self._at(key), data, content_type):
                return  # or boto3 tries again, and its error says what to do
        # 412 also answers boto's own second attempt, when the first came through and its answer did not
        try:
            with self._faults_named(key, success_codes={"PreconditionFailed", "412"}):
                self._client().put_object(
                    Bucket=self._settings.bucket,
                    Key=self._at(key),
                    Body=data,
                    ContentType=content_type,
                    IfNoneMatch="*",
                )
        except ObjectMissingError as fault:  # what is written cannot be missing: something else answers in its place
            raise ObjectStoreUnreachableError(self._endpoint, "404 to what was to be stored") from fault

    def replace(self, key: str, data: bytes, content_type: str) -> None:
        """Store the bytes in place of what may be there: for what is named by what it tells of, and not by its hash."""
        with self._faults_named(key):
            self._client().put_object(
                Bucket=self._settings.bucket, Key=self._at(key), Body=data, ContentType=content_type
            )

    def get(self, key: str) -> bytes:
        """Return the bytes; raises `ObjectMissingError`."""
        with self._faults_named(key):
            answer = self._client().get_object(Bucket=self._settings.bucket, Key=self._at(key))
            data: bytes = answer["Body"].read()
            if len(data) != answer.get("ContentLength"):  # cut within the headers, an answer looks like an empty one
                raise OSError(f"the answer was cut: {len(data)} bytes of {answer.get('ContentLength')}")
            return data

    def exists(self, key: str) -> bool:
        """Return whether the key is there."""
        try:
            with self._faults_named(key):
                self._client().head_object(Bucket=self._settings.bucket, Key=self._at(key))
        except ObjectMissingError:
            return False
        return True

    def presign_get(self, key: str) -> str:
        """Return a URL that reads this object until `presign_expiry_s` have passed; it is a credential."""
        return self._presign("get_object", key)

    def presign_put(self, key: str) -> str:
        """Return a URL that writes this object until `presign_expiry_s` have passed; it is a credential."""
        return self._presign("put_object", key)

    @property
    def presign_expiry(self) -> timedelta:
        """Return how long a presigned URL holds."""
        return timedelta(seconds=self._settings.presign_expiry_s)

    def _presign(self, operation: str, key: str) -> str:
        settings = self._settings
        with self._faults_named(key):
            url: str = self._client(settings.presign_endpoint_url).generate_presigned_url(
                operation,
                Params={"Bucket": settings.bucket, "Key": self._at(key)},
                ExpiresIn=settings.presign_expiry_s,
            )
            return url

    def _create_bucket(self) -> None:
        settings = self._settings
        elsewhere = {"CreateBucketConfiguration": {"LocationConstraint": settings.region}}
        with self._faults_named(success_codes={"BucketAlreadyOwnedByYou"}):
            self._client().create_bucket(
                Bucket=settings.bucket, **(elsewhere if settings.region != "us-east-1" else {})
            )

    def _at(self, key: str) -> str:
        return self._settings.prefix + key

    def _client(self, endpoint_url: str | None = None) -> Any:
        address = endpoint_url or self._settings.endpoint_url
        with self._making:
            if address not in self._clients:
                # a session of our own: boto3's default session is not thread-safe while it makes clients
                self._clients[address] = boto3.session.Session().client(
                    "s3", endpoint_url=address, region_name=self._settings.region, config=self._config()
                )
            return self._clients[address]

    def _quick_objects(self) -> QuickObjects | None:
        """Return the quick way; None without keys."""
        settings = self._settings
        with self._making:
            if self._quick is None:
                keys = boto3.session.Session().get_credentials()
                if keys is None:
                    return None
                self._quick = QuickObjects(
                    settings.bucket,
                    settings.region,
                    settings.endpoint_url,
                    keys.get_frozen_credentials,
                    timedelta(seconds=settings.connect_timeout_s),
                    timedelta(seconds=settings.read_timeout_s),
                )
            return self._quick

    def _config(self) -> Config:
        settings = self._settings
        return Config(
            signature_version="s3v4",
            connect_timeout=settings.connect_timeout_s,
            read_timeout=settings.read_timeout_s,
            retries={"total_max_attempts": settings.max_attempts, "mode": "standard"},
            max_pool_connections=settings.max_connections,
            s3={"addressing_style": "path" if settings.endpoint_url else "auto"},
            # S3-compatible servers do not all know the newer checksums; keys are SHA-256 of the content
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )

    @contextmanager
    def _faults_named(self, key: str = "", success_codes: Set[str] = frozenset()) -> Iterator[None]:
        settings = self._settings
        try:
            yield
        except ClientError as fault:
            error = fault.response.get("Error", {})
            code = str(error.get("Code", ""))
            if code not in success_codes:
                raise self._named(fault, code, str(error.get("Message", "")), key) from fault
        except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as fault:
            raise BucketDeniedError(settings.bucket, self._endpoint, str(fault)) from fault
        except (BotoCoreError, ValueError, OSError) as fault:
            raise ObjectStoreUnreachableError(self._endpoint, str(fault)) from fault

    def _named(self, fault: ClientError, code: str, message: str, key: str) -> ObjectStoreError:
        settings = self._settings
        status = int(fault.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code == "NoSuchBucket" or (code in MISSING_CODES and not key):
            return BucketMissingError(settings.bucket, self._endpoint)
        if code in MISSING_CODES:
            return ObjectMissingError(settings.bucket, settings.prefix + key)
        if code in DENIED_CODES or status in (401, 403):
            skew_s = _clock_skew_s(fault)
            if abs(skew_s) > MAX_CLOCK_SKEW_S:
                return ObjectStoreUnreachableError(
                    self._endpoint, f"denied, and our clock is {skew_s:+.0f} s off: set it"
                )
            return BucketDeniedError(settings.bucket, self._endpoint, f"{code} {message}".strip())
        if 400 <= status < 500 and status not in (404, 408, 409, 429):
            return ObjectRefusedError(self._endpoint, code, message)
        return ObjectStoreUnreachableError(self._endpoint, f"{code or status} {message}".strip())


def _clock_skew_s(fault: ClientError) -> float:
    """Return by how much our clock is ahead of the server's, by the answer's date; 0 where it has none."""
    said = fault.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return time.time() - parsedate_to_datetime(said).timestamp()
    except ValueError:
        return 0.0


class InvalidKeyPartError(ValueError):
    """Something that may not stand in a key: keys hold hashes, random ids and our own file names, nothing else."""

    def __init__(self, value: str) -> None:
        """Remember the value."""
        super().__init__(f"{value[:80]!r} may not stand in an object key")
        self.value = value


def image_key(sha256: str) -> str:
    """Name the prepared 256x256 PNG."""
    return _by_hash("slices", sha256, ".png")


def frame_key(sha256: str, media_type: str) -> str:
    """Name the captured original."""
    return _by_hash("frames", sha256, "." + FRAME_SUFFIXES.get(media_type, "bin"))


def model_key(sha256: str, name: str) -> str:
    """Name a file of a model or checkpoint; `name` is one of our own file names."""
    return _by_hash("models", sha256, "/" + _checked_name(name))


def index_key(sha256: str, pieces: Sequence[str]) -> str:
    """Name the index of a file of a model, by the file's hash and those of the index's pieces."""
    return _by_hash("models", sha256, f"/index-{hashlib.sha256(''.join(pieces).encode()).hexdigest()[:32]}")


def card_key(version: int) -> str:
    """Name the model card of a release."""
    return f"cards/{version}.md"


def dataset_key(sha256: str) -> str:
    """Name the list that a retrain request leads to."""
    return _by_hash("datasets", sha256, ".json")


def quarantine_key(sha256: str) -> str:
    """Name a message that could not be understood; the ledger's dead letter with this hash says why."""
    return _by_hash("quarantine", sha256, "")


def upload_key(request_id: str, name: str) -> str:
    """Name where a trainer puts a file of its candidate."""
    return f"uploads/{_checked_name(request_id)}/{_checked_name(name)}"


def _by_hash(folder: str, sha256: str, rest: str) -> str:
    if not (len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")):
        raise InvalidKeyPartError(sha256)
    return f"{folder}/{sha256[:2]}/{sha256}{rest}"


def _checked_name(name: str) -> str:
    plain = name.isascii() and name.replace("-", "").replace("_", "").replace(".", "").isalnum()
    if not plain or name.startswith(".") or len(name) > MAX_NAME_LENGTH:
        raise InvalidKeyPartError(name)
    return name
