"""The deployment's files agree with each other and with the settings; no container engine is needed to see that."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.limits import INBOUND_HEADROOM_BYTES
from broker.settings import MAX_PAYLOAD_BYTES, BrokerSettings
from protocol.topics import Kind

ROOT = Path(__file__).parents[2]
OWN_SERVICES = {"worker": "cloud", "trainer": "training", "dashboard": "cloud", "edge": "edge"}
MADE_BY_THE_OPERATOR = ("./certs/", "./state/", "./keys", "${")
PINNED = re.compile(r"^[a-z0-9/.-]+:\d+\.\d+(\.\d+)?$")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


def test_the_services_are_those_of_the_design(compose: dict[str, Any]) -> None:
    """Broker, object store and our four processes, and nothing else."""
    assert set(compose["services"]) == {"broker", "s3", *OWN_SERVICES}


@pytest.mark.parametrize("name", OWN_SERVICES)
def test_each_process_runs_its_own_command(compose: dict[str, Any], name: str) -> None:
    """A service runs the subcommand of its name with the mounted configuration."""
    service = compose["services"][name]
    assert service["command"] == ["sliceloop", name, "--config", "/etc/sliceloop/sliceloop.toml"]
    assert any(volume.split(":")[-2] == "/etc/sliceloop/sliceloop.toml" for volume in service["volumes"])


@pytest.mark.parametrize("name", [*OWN_SERVICES, "broker", "s3"])
def test_each_service_is_guarded(compose: dict[str, Any], name: str) -> None:
    """No root, no writable root file system, no capabilities, a memory limit, a restart policy, a pinned image."""
    service = compose["services"][name]
    assert "SLICELOOP_UID" in service["user"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["restart"] in ("unless-stopped", "no")
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert PINNED.match(service["image"]), f"{service['image']} is not pinned"


def test_what_others_wait_for_has_a_health_check(compose: dict[str, Any]) -> None:
    """A service that another one waits for as healthy says how healthy is found out."""
    for service in compose["services"].values():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in compose["services"][needed]


def test_every_mounted_file_of_the_repository_exists(compose: dict[str, Any]) -> None:
    """A bind mount names a file of the repository, or one that the top of the file tells the operator to make."""
    sources = [volume.rsplit(":", 2 if volume.endswith(":ro") else 1)[0] for volume in volumes(compose)]
    ours = [source for source in sources if not source.startswith(MADE_BY_THE_OPERATOR)]
    assert ours
    assert [source for source in ours if not (ROOT / source).is_file()] == []


def volumes(compose: dict[str, Any]) -> list[str]:
    return [volume for service in compose["services"].values() for volume in service["volumes"]]


def test_no_secret_stands_in_the_file(compose: dict[str, Any]) -> None:
    """Keys come from .env, and the variable must be set."""
    for name in ("s3", "worker"):
        environment = compose["services"][name]["environment"]
        assert all(environment[key].startswith("${S3_") for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    for name in ("trainer", "dashboard", "edge"):
        assert not any("AWS" in key for key in compose["services"][name]["environment"])


@pytest.mark.parametrize("name", OWN_SERVICES)
def test_the_environment_names_settings_that_exist(compose: dict[str, Any], name: str) -> None:
    """An override SLICELOOP_BROKER__X is a field x of the broker's settings; a typing error would stop the service."""
    prefix = "SLICELOOP_BROKER__"
    named = {key.removeprefix(prefix).lower() for key in compose["services"][name]["environment"] if prefix in key}
    assert {"host", "port", "tls_ca_file", "tls_cert_file", "tls_key_file"} <= named <= set(BrokerSettings.model_fields)


def test_extras_in_the_image_are_those_of_the_distribution(compose: dict[str, Any]) -> None:
    """Each image is built with the extra of its role; the edge's brings no torch."""
    for name, extra in OWN_SERVICES.items():
        service = compose["services"][name]
        assert service["image"].startswith(f"sliceloop-{extra}:")
        assert service.get("build", {"args": {"EXTRA": extra}})["args"]["EXTRA"] == extra


def test_images_in_the_dockerfile_are_pinned() -> None:
    """Every stage starts from an image with a full version."""
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert bases
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base) for base in bases)


def test_no_key_can_get_into_an_image() -> None:
    """The build context is a list of what goes in, and no key is in it."""
    lines = (ROOT / ".dockerignore").read_text().split()
    assert "*" in lines
    assert {"**/*.key", "**/*.pem", "**/*.crt"} <= set(lines)


def test_the_broker_takes_what_our_settings_promise() -> None:
    """mosquitto's packet limit is our payload limit and the room for topic and properties."""
    options = dict(line.split(" ", 1) for line in conf_lines())
    assert int(options["max_packet_size"]) == MAX_PAYLOAD_BYTES + INBOUND_HEADROOM_BYTES
    assert int(options["max_inflight_messages"]) >= BrokerSettings().max_inflight
    assert options["allow_anonymous"] == "false"
    assert options["require_certificate"] == "true"


def conf_lines() -> list[str]:
    lines = (ROOT / "broker" / "mosquitto.conf").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_kind_of_message_has_its_access_rule() -> None:
    """A new kind of message without a rule would be denied in the deployment and pass in every other test."""
    rules = [line for line in (ROOT / "broker" / "sliceloop.acl").read_text().splitlines() if not line.startswith("#")]
    for kind in Kind:
        writers = [rule for rule in rules if "write" in rule and re.search(rf"/{kind}(/\+)?$", rule)]
        assert writers, f"nobody may write {kind}"


def test_the_compose_file_is_tidy() -> None:
    """yamllint has nothing to say."""
    pytest.importorskip("yamllint", reason="yamllint is not installed (pip install 'sliceloop[dev]')")
    rules = "{extends: default, rules: {line-length: {max: 120}, braces: {max-spaces-inside: 0}}}"
    done = subprocess.run(
        [sys.executable, "-m", "yamllint", "-d", rules, ROOT / "docker-compose.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
