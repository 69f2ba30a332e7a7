"""Reads what the settings only name: the password and the TLS files."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from broker.errors import CredentialFileError
from broker.settings import BrokerSettings


@dataclass(frozen=True)
class Credentials:
    """What a session shows the broker."""

    password: str | None
    tls: ssl.SSLContext | None


def read_credentials(settings: BrokerSettings) -> Credentials:
    """Read the files named in the settings; raises CredentialFileError naming the one that cannot be used."""
    return Credentials(_password(settings.password_file), _tls(settings))


def _password(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialFileError(path, str(error)) from error


def _tls(settings: BrokerSettings) -> ssl.SSLContext | None:
    if settings.tls_ca_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(settings.tls_ca_file))
    except OSError as error:  # ssl.SSLError is an OSError
        raise CredentialFileError(settings.tls_ca_file, f"not a readable CA certificate in PEM: {error}") from error
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        _load_client_certificate(context, settings.tls_cert_file, settings.tls_key_file)
    return context


def _load_client_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
    for path in (cert_file, key_file):
        if not path.is_file():
            raise CredentialFileError(path, "no such file")
    try:
        # An empty passphrase, so that an encrypted key fails here instead of asking at a terminal that nobody watches.
        context.load_cert_chain(cert_file, key_file, password="")
    except OSError as error:
        raise CredentialFileError(cert_file, f"does not fit the unencrypted key {key_file}: {error}") from error
