"""Makes the certificates of a deployment: one authority, one for the broker, one for each edge and cloud role.

The common name of a client certificate is its user name at the broker, and the access rules (sliceloop.acl) are written
for it: `{site}/{edge}` for an edge, the name of its role for a cloud process.
"""

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.errors import AlreadyExistsError, CredentialFileError, InvalidNameError
from protocol.topics import ID_PATTERN, RESERVED_SITES

ROLES = ("worker", "trainer", "dashboard", "engineer")
AUTHORITY_NAME = "sliceloop authority"
AUTHORITY_VALID_DAYS = 3_650
VALID_DAYS = 825
"""The longest that browsers and Apple's TLS accept for a leaf."""

MAX_COMMON_NAME_CHARACTERS = 64
"""X.520, ub-common-name."""

HOSTNAME_PATTERN = r"(\*\.)?[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*"
CLOCK_SKEW = timedelta(hours=1)
KEY_MODE = 0o600
CERTIFICATE_MODE = 0o644


@dataclass(frozen=True)
class Issued:
    """Where a certificate and its key were written."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def create_authority(folder: Path, *, overwrite: bool = False) -> Issued:
    """Make the authority, `ca.crt` and `ca.key`; whoever has the key can let anybody in, so keep it off the broker."""
    paths = _paths(folder, "ca", overwrite)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(AUTHORITY_NAME)
    builder = (
        _builder(name, name, key, AUTHORITY_VALID_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _write(paths, builder.sign(key, hashes.SHA256()), key)


def issue_server(folder: Path, hostnames: Sequence[str], *, overwrite: bool = False) -> Issued:
    """Make the broker's certificate, `server.crt` and `server.key`, for host names and addresses that clients dial."""
    if not hostnames:
        raise InvalidNameError("", "at least one host name or address of the broker")
    names = x509.SubjectAlternativeName([_alternative_name(hostname) for hostname in hostnames])
    return _issue(folder, "server", _shortened(hostnames[0]), names, ExtendedKeyUsageOID.SERVER_AUTH, overwrite)


def issue_client(folder: Path, common_name: str, *, overwrite: bool = False) -> Issued:
    """Make a client's certificate: `client-{role}.crt`, or `client-{site}_{edge}.crt` for the common name site/edge."""
    check_common_name(common_name)
    stem = "client-" + common_name.replace("/", "_")
    return _issue(folder, stem, common_name, None, ExtendedKeyUsageOID.CLIENT_AUTH, overwrite)


def check_common_name(common_name: str) -> None:
    """Raise InvalidNameError unless the name is a role or a site and edge that the access rules are safe with."""
    if common_name in ROLES:
        return
    site, _, edge = common_name.partition("/")
    if not all(re.fullmatch(ID_PATTERN, part) for part in (site, edge)):
        raise InvalidNameError(common_name, f"a role ({', '.join(ROLES)}) or site/edge, each of [a-z0-9-]{{1,32}}")
    if site in RESERVED_SITES:  # an edge cloud/retrain could write sliceloop/v1/cloud/retrain/status
        raise InvalidNameError(common_name, f"a site other than {' and '.join(sorted(RESERVED_SITES))}")
    if len(common_name) > MAX_COMMON_NAME_CHARACTERS:
        raise InvalidNameError(common_name, f"site and edge of {MAX_COMMON_NAME_CHARACTERS - 1} characters together")


def _issue(
    folder: Path,
    stem: str,
    common_name: str,
    names: x509.SubjectAlternativeName | None,
    usage: x509.ObjectIdentifier,
    overwrite: bool,
) -> Issued:
    authority = _read_authority(folder)
    paths = _paths(folder, stem, overwrite)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name(common_name), authority.certificate.subject, key, VALID_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return _write(paths, builder.sign(authority.key, hashes.SHA256()), key)


def _read_authority(folder: Path) -> _Authority:
    certificate_file, key_file = folder / "ca.crt", folder / "ca.key"
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except (OSError, ValueError) as error:
        raise CredentialFileError(certificate_file, f"make the authority first ({error})") from error
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise CredentialFileError(key_file, f"not a readable, unencrypted private key ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise CredentialFileError(key_file, f"not the key of {certificate_file}")
    return _Authority(certificate, key)


def _paths(folder: Path, stem: str, overwrite: bool) -> Issued:
    paths = Issued(folder / f"{stem}.crt", folder / f"{stem}.key")
    for path in (paths.key, paths.certificate):
        if path.exists() and not overwrite:
            raise AlreadyExistsError(path)
    return paths


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, valid_days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=valid_days))
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _shortened(hostname: str) -> str:
    return hostname[:MAX_COMMON_NAME_CHARACTERS]  # clients compare the alternative names, which are not cut


def _alternative_name(hostname: str) -> x509.GeneralName:
    if re.fullmatch(r"[0-9.]+|.*:.*", hostname):
        return _address(hostname)
    if not re.fullmatch(HOSTNAME_PATTERN, hostname):
        raise InvalidNameError(hostname, "a host name in ASCII (punycode) or an IP address")
    return x509.DNSName(hostname)


def _address(text: str) -> x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError as error:
        raise InvalidNameError(text, "an IP address") from error


def _write(paths: Issued, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write_file(paths.key, secret, KEY_MODE)
    _write_file(paths.certificate, certificate.public_bytes(serialization.Encoding.PEM), CERTIFICATE_MODE)
    return paths


def _write_file(path: Path, content: bytes, mode: int) -> None:
    """Write by a temporary file, which is never readable to others, so that no half key is ever found."""
    passing = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        passing.unlink(missing_ok=True)
        descriptor = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        passing.replace(path)
    except OSError as error:
        raise CredentialFileError(path, f"not written ({error})") from error
