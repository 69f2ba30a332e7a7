"""mosquitto as the deployment configures it, but for TLS and access rules: its limits and what it keeps hold here."""

import os
import shutil
from importlib.resources import files
from pathlib import Path

PLACES = ("/usr/sbin", "/usr/local/sbin")
NOT_HERE = (
    "listener",
    "cafile",
    "certfile",
    "keyfile",
    "require_certificate",
    "use_identity_as_username",
    "tls_version",
    "allow_anonymous",
    "acl_file",
    "persistence_location",
    "autosave_interval",
)
"""Options of the deployment that a run on one machine replaces or leaves out."""
STORE = "mosquitto.db"
AUTOSAVE_S = 1


def find_mosquitto() -> str | None:
    """Return where mosquitto is; Debian keeps it where users do not look."""
    return shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))


def write_config(folder: Path, port: int) -> Path:
    """Write its configuration; what it keeps is in the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    deployed = files("broker").joinpath("mosquitto.conf").read_text().splitlines()
    kept = [line for line in deployed if line and line.split()[0] not in NOT_HERE and not line.startswith("#")]
    ours = [
        f"listener {port} 127.0.0.1",
        "allow_anonymous true",
        f"persistence_location {folder}/",
        f"autosave_interval {AUTOSAVE_S}",
    ]
    if os.geteuid() == 0:
        ours.append("user root")  # or it becomes another user, whose folder this is not
    path = folder / "mosquitto.conf"
    path.write_text("\n".join([*ours, *kept]) + "\n")
    return path


def forget(folder: Path) -> None:
    """Remove what it kept."""
    (folder / STORE).unlink(missing_ok=True)
