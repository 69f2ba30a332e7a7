"""What can be wrong with something that was said; every error names the fault and carries the facts."""


class ProtocolError(ValueError):
    """A message, topic or envelope that cannot be accepted."""


class UnknownTopicError(ProtocolError):
    """The topic is none of ours."""

    def __init__(self, topic: str) -> None:
        """Remember the topic."""
        super().__init__(f"topic {topic[:120]!r} is none of sliceloop's")
        self.topic = topic


class InvalidIdError(ProtocolError):
    """An id that may not stand in a topic."""

    def __init__(self, what: str, value: str) -> None:
        """Remember what the id is of, and its value."""
        super().__init__(f"{what} {value[:80]!r} must match [a-z0-9-]{{1,32}} and not be 'cloud' or 'fleet'")
        self.what, self.value = what, value


class MalformedPayloadError(ProtocolError):
    """The bytes are no message of the type that the topic carries."""

    def __init__(self, kind: str, reason: str) -> None:
        """Remember the kind of message and what is wrong with it."""
        super().__init__(f"{kind}: {reason}")
        self.kind, self.reason = kind, reason


class UnknownSchemaMajorError(ProtocolError):
    """A newer (or foreign) peer speaks a schema major that we do not know; the message is quarantined."""

    def __init__(self, kind: str, dataschema: str, known_major: int) -> None:
        """Remember what was said and what we know."""
        super().__init__(f"{kind}: schema {dataschema[:80]!r} is not major {known_major}; update this side")
        self.kind, self.dataschema, self.known_major = kind, dataschema, known_major


class MessageTooLargeError(ProtocolError):
    """More bytes than the type may have; found before parsing and before publishing."""

    def __init__(self, kind: str, size: int, limit: int) -> None:
        """Remember size and limit in bytes."""
        super().__init__(f"{kind}: {size:,} bytes exceed the limit of {limit:,}")
        self.kind, self.size, self.limit = kind, size, limit


class TrustError(ProtocolError):
    """A release that must not be activated."""

    def __init__(self, reason: str, version: int = 0) -> None:
        """Remember the version, 0 where nothing that can be trusted says it."""
        super().__init__(reason)
        self.version = version


class EnvelopeError(TrustError):
    """The bytes are no DSSE envelope over a manifest of ours."""


class SignatureError(TrustError):
    """Too few valid signatures by trusted keys."""


class ExpiredManifestError(TrustError):
    """The manifest's expiry has passed."""


class OldVersionError(TrustError):
    """The version is not newer than the one in use: versions only grow."""


class UnsupportedManifestError(TrustError):
    """The manifest needs preprocessing, labels or a schema that this edge does not have."""


class LengthMismatchError(TrustError):
    """A file or chunk has another length than the manifest says."""


class HashMismatchError(TrustError):
    """A file or chunk has another SHA-256 than the manifest says."""
