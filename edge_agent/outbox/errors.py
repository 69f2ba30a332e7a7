"""What can go wrong with the outbox: each error says why, and what to do."""


class OutboxError(RuntimeError):
    """The outbox cannot take or give messages; the message says why and what to do."""


class OutboxFullError(OutboxError):
    """The bound is reached: the new slice is refused and stays with its source."""


class OutboxKeyError(OutboxError):
    """The outbox is encrypted, and the key is missing, wrong or no key."""


class OutboxNumberError(OutboxError):
    """A sequence number was given before; no number is given twice."""


class OutboxSchemaError(OutboxError):
    """The outbox was written by a newer software; it is left as it is."""


class OutboxDamagedError(OutboxError):
    """The database was damaged; it is set aside, what could be read is in a new one, and the next call works."""
