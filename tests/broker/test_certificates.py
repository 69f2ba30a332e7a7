"""Certificates: what is made, what is refused, what is never overwritten."""

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from broker.certificates import create_authority, issue_client, issue_server
from broker.errors import AlreadyExistsError, CredentialFileError, InvalidNameError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_authority(tmp_path)
    return tmp_path


def test_keys_are_for_their_owner_alone(folder: Path) -> None:
    """Every private key has mode 0600 and no other file is left behind."""
    issue_server(folder, ["broker"])
    issued = issue_client(folder, "site-a/edge-1")
    assert issued.key.name == "client-site-a_edge-1.key"
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.key")} == {0o600}
    assert sorted(path.suffix for path in folder.iterdir()) == [".crt"] * 3 + [".key"] * 3


def test_the_authority_signed_them(folder: Path) -> None:
    """A leaf verifies against the authority and carries the name that the access rules know."""
    authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    leaf = x509.load_pem_x509_certificate(issue_client(folder, "site-a/edge-1").certificate.read_bytes())
    leaf.verify_directly_issued_by(authority)
    assert leaf.subject.rfc4514_string() == "CN=site-a/edge-1"


def test_a_server_is_known_by_names_and_addresses(folder: Path) -> None:
    """Host names and IP addresses stand in the certificate as what they are."""
    issued = issue_server(folder, ["broker.example.org", "10.0.0.1", "::1", "b" * 60 + ".example.org"])
    leaf = x509.load_pem_x509_certificate(issued.certificate.read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example.org", "b" * 60 + ".example.org"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "::1"]


def test_nothing_is_overwritten_unasked(folder: Path) -> None:
    """A second issue raises and leaves the files; asked to, it replaces them."""
    issued = issue_client(folder, "worker")
    before = issued.key.read_bytes()
    with pytest.raises(AlreadyExistsError) as caught:
        issue_client(folder, "worker")
    assert caught.value.path == issued.key
    assert issued.key.read_bytes() == before
    assert issue_client(folder, "worker", overwrite=True).key.read_bytes() != before
    with pytest.raises(AlreadyExistsError):
        create_authority(folder)


@pytest.mark.parametrize(
    "name",
    ["", "edge", "Site/edge", "a/b/c", "a/", "/b", "a/+", "a/#", "../worker", "cloud/retrain", "fleet/model", "a/b\n"],
)
def test_a_name_that_would_open_another_door_is_refused(folder: Path, name: str) -> None:
    """Only roles and site/edge get a certificate, and no site whose topics belong to the cloud."""
    with pytest.raises(InvalidNameError):
        issue_client(folder, name)


def test_a_name_too_long_for_a_certificate_is_refused(folder: Path) -> None:
    """A common name has at most 64 characters."""
    issue_client(folder, f"{'s' * 32}/{'e' * 31}")
    with pytest.raises(InvalidNameError, match="63 characters together"):
        issue_client(folder, f"{'s' * 32}/{'e' * 32}")


@pytest.mark.parametrize("hostnames", [[], [""], ["bro ker"], ["büro"], ["1.2.3"], ["::g"]])
def test_a_host_that_cannot_be_is_refused(folder: Path, hostnames: list[str]) -> None:
    """A host name or address that no client could dial is refused."""
    with pytest.raises(InvalidNameError):
        issue_server(folder, hostnames)


def test_without_an_authority_it_says_what_to_do_first(tmp_path: Path) -> None:
    """No authority, a broken one, or a foreign key is named with its path."""
    with pytest.raises(CredentialFileError, match="make the authority first"):
        issue_client(tmp_path, "worker")
    create_authority(tmp_path)
    other = tmp_path / "other"
    (tmp_path / "ca.key").write_bytes(create_authority(other).key.read_bytes())
    with pytest.raises(CredentialFileError, match="not the key of"):
        issue_client(tmp_path, "worker")
    (tmp_path / "ca.key").write_bytes(b"rubbish")
    with pytest.raises(CredentialFileError, match=r"ca\.key"):
        issue_client(tmp_path, "worker")


def test_keys_load_without_a_passphrase(folder: Path) -> None:
    """Services start unattended, so the keys are not encrypted: the file mode guards them."""
    key = issue_client(folder, "worker").key
    assert serialization.load_pem_private_key(key.read_bytes(), password=None)
