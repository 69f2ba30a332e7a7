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
    """The bytes are no DSSE envelope over a document of ours."""


class UnsafeNameError(EnvelopeError):
    """A file name that could lead out of its folder, or that is none."""


class OversizeError(EnvelopeError):
    """The manifest claims more bytes than an edge takes."""


class SignatureError(TrustError):
    """The signatures do not make the document trusted; subclasses say which way."""


class WrongKeyError(SignatureError):
    """No trusted key has signed."""


class TooFewSignaturesError(SignatureError):
    """Trusted keys have signed, but fewer of them than the threshold."""


class TamperedError(SignatureError):
    """A trusted key's signature is there, and does not belong to these bytes."""


class ExpiredManifestError(TrustError):
    """The manifest's expiry has passed."""


class OldVersionError(TrustError):
    """The version is not newer than the one in use, and no signed rollback names it: versions only grow."""


class BannedVersionError(TrustError):
    """The version failed on this edge before, or was withdrawn."""


class VersionTakenTwiceError(TrustError):
    """The version runs here with another network: a version is given once."""


class UnsupportedManifestError(TrustError):
    """The manifest needs labels or a schema that this edge does not have."""


class OtherPreprocessingError(UnsupportedManifestError):
    """The network was trained on slices that were prepared otherwise than this edge prepares them."""


class OtherArchitectureError(UnsupportedManifestError):
    """The network is of an architecture that this edge is not fit for."""


class FrozenError(TrustError):
    """The newest assignment has expired: somebody keeps news away, or the cloud is silent."""


class ForeignAssignmentError(TrustError):
    """The assignment is another edge's."""


class ReplayedAssignmentError(TrustError):
    """The assignment is older than one that this edge has seen."""


class ConflictingAssignmentError(TrustError):
    """Two different assignments have the same number: whoever signs them says two things at once."""


class UnassignedReleaseError(TrustError):
    """The release is not the one that the newest assignment names."""


class KeyRotationError(TrustError):
    """The new keys do not follow from the ones in use."""


class LengthMismatchError(TrustError):
    """A file, chunk or list has another length than the manifest says."""


class TruncatedChunkError(LengthMismatchError):
    """A chunk is shorter or longer than its list says."""


class HashMismatchError(TrustError):
    """A file or chunk has another SHA-256 than the manifest says."""


class TamperedChunkError(HashMismatchError):
    """A chunk's bytes are not those that its name promises."""


class ForeignChunkError(TrustError):
    """A chunk that no file of the release on its way has."""


class ExtraChunkError(TrustError):
    """A chunk of the release on its way that is here already."""


class EndlessDataError(TrustError):
    """A source sends more than was asked for, and goes on."""
