"""What can go wrong on the way: each error names the fault and carries the facts."""

from pathlib import Path


class BrokerError(Exception):
    """Anything that the broker package raises."""


class OversizeError(BrokerError):
    """A message is larger than the broker takes; it was not sent."""

    def __init__(self, topic: str, size: int, limit: int) -> None:
        super().__init__(f"message for {topic} has {size} bytes, the broker takes {limit}: not sent")
        self.topic, self.size, self.limit = topic, size, limit


class InvalidMessageError(BrokerError):
    """A message that MQTT cannot carry (wildcard in the topic, text that is not UTF-8, ...); it was not sent."""

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(f"message for {topic!r} cannot be sent: {reason}")
        self.topic, self.reason = topic, reason


class UnsupportedByBrokerError(BrokerError):
    """The broker said when we connected that it does not do this; the message was not sent."""

    def __init__(self, topic: str, feature: str) -> None:
        super().__init__(f"message for {topic} not sent: this broker does not support {feature}")
        self.topic, self.feature = topic, feature


class NotConnectedError(BrokerError):
    """There is no connection; nothing is queued here, so that the caller's outbox stays the only queue."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"not connected to the broker at {host}:{port}: message not sent")
        self.host, self.port = host, port


class WindowFullError(BrokerError):
    """As many messages as the window allows wait for their PUBACK; try again when one has come."""

    def __init__(self, window: int) -> None:
        super().__init__(f"{window} messages wait for their PUBACK: message not sent")
        self.window = window


class CredentialFileError(BrokerError):
    """A password, key or certificate file cannot be used."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot use {path}: {reason}")
        self.path, self.reason = path, reason


class AlreadyExistsError(BrokerError):
    """A key or certificate is there already and is not overwritten unasked."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists: not overwritten; ask for overwriting or choose another folder")
        self.path = path


class InvalidNameError(BrokerError):
    """A name cannot stand in a certificate of ours."""

    def __init__(self, name: str, expected: str) -> None:
        super().__init__(f"{name!r} is not a valid name: expected {expected}")
        self.name, self.expected = name, expected


class PortInUseError(BrokerError):
    """Another program listens on the port."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} is in use: stop the program that listens there, or choose another port")
        self.port = port


class BrokerStartError(BrokerError):
    """The embedded broker did not start."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the embedded broker did not start: {reason}")
        self.reason = reason
