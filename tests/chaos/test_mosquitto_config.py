"""The broker of a run keeps the deployment's limits."""

from pathlib import Path

from sliceloop.chaos.mosquitto import write_config


def test_the_deployments_limits_hold_and_its_tls_does_not(tmp_path: Path) -> None:
    """Queues, packet size and persistence are those of broker/mosquitto.conf; certificates are left out."""
    lines = write_config(tmp_path, 1883).read_text().splitlines()
    assert "listener 1883 127.0.0.1" in lines
    assert "persistence true" in lines
    assert any(line.startswith("max_queued_bytes") for line in lines)
    assert not [line for line in lines if line.startswith(("cafile", "acl_file", "require_certificate"))]
