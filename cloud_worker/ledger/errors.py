"""What can be wrong with the ledger; each error names the fault and carries the facts."""


class LedgerError(Exception):
    """Anything that the ledger raises."""


class LedgerUnavailableError(LedgerError):
    """The database cannot be reached, opened or written just now; what was asked for has not happened."""

    def __init__(self, url: str, reason: str) -> None:
        """Remember the URL, which has no password in it, and the database's reason."""
        super().__init__(
            f"ledger {url}: {reason}; check that it runs, that its folder exists and that the disk has room"
        )
        self.url, self.reason = url, reason


class LedgerTooNewError(LedgerError):
    """The ledger was migrated by a newer sliceloop."""

    def __init__(self, url: str, reason: str) -> None:
        """Remember the URL, which has no password in it, and what alembic said."""
        super().__init__(f"ledger {url} is of a newer sliceloop: update this one ({reason})")
        self.url, self.reason = url, reason


class RefusedByLedgerError(LedgerError):
    """The database will never take these values (too large, not text, ...): trying again does not help."""

    def __init__(self, reason: str) -> None:
        """Remember the database's reason."""
        super().__init__(f"the ledger refuses the values: {reason}")
        self.reason = reason


class NaiveTimeError(LedgerError):
    """A datetime without time zone; the ledger takes aware ones only."""

    def __init__(self, value: object) -> None:
        """Remember the value."""
        super().__init__(f"{value} has no time zone: the ledger takes aware datetimes only")
        self.value = value


class UnknownSliceError(LedgerError):
    """No slice has this id or begins like this."""

    def __init__(self, slice_id: str) -> None:
        """Remember what was asked for."""
        super().__init__(f"no slice {slice_id!r} in the ledger")
        self.slice_id = slice_id


class AmbiguousSliceError(LedgerError):
    """Several slices begin like this."""

    def __init__(self, prefix: str) -> None:
        """Remember what was asked for."""
        super().__init__(f"several slices begin with {prefix!r}: give more of the id")
        self.prefix = prefix


class UnknownDeadLetterError(LedgerError):
    """No dead letter has this number."""

    def __init__(self, letter_id: int) -> None:
        """Remember what was asked for."""
        super().__init__(
            f"no dead letter {letter_id} in the ledger: `sliceloop dead list` shows those that are kept (the newest)"
        )
        self.letter_id = letter_id


class DeadLetterClosedError(LedgerError):
    """The dead letter was replayed or discarded already."""

    def __init__(self, letter_id: int, state: str) -> None:
        """Remember the letter and what became of it."""
        super().__init__(f"dead letter {letter_id} is {state} already: nothing is left to do")
        self.letter_id, self.state = letter_id, state


class UnknownRequestError(LedgerError):
    """No retrain request has this id."""

    def __init__(self, request_id: str) -> None:
        """Remember what was asked for."""
        super().__init__(f"no retrain request {request_id!r} in the ledger")
        self.request_id = request_id


class UnknownReleaseError(LedgerError):
    """No release has this version."""

    def __init__(self, version: int) -> None:
        """Remember what was asked for."""
        super().__init__(f"no release {version} in the ledger: `sliceloop status` lists them")
        self.version = version


class VersionTakenError(LedgerError):
    """A release, or a set of keys, of this version exists: somebody else was quicker; versions only grow."""

    def __init__(self, version: int) -> None:
        """Remember the version."""
        super().__init__(f"somebody else entered version {version} at this moment: nothing of yours was; do it again")
        self.version = version
