"""The README says what is there."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("protocol", "broker", "edge_agent", "cloud_worker", "training", "sliceloop")


def test_every_setting_stands_in_the_readme_as_the_command_prints_it() -> None:
    """The README's table of settings is what `sliceloop settings` prints."""
    printed = subprocess.run(
        [sys.executable, "-m", "sliceloop", "settings"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert printed in (ROOT / "README.md").read_text()


def test_every_source_file_stands_in_the_readme() -> None:
    """The README's tree names every source file of every package."""
    tree = (ROOT / "README.md").read_text()
    files = {path.name for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"}
    assert not [name for name in sorted(files) if f" {name} " not in tree]


def test_the_example_configuration_is_accepted_by_every_process() -> None:
    """sliceloop.example.toml can be read by edge, worker and trainer as it is."""
    from broker.settings import BrokerSettings
    from cloud_worker.object_store import S3Settings
    from cloud_worker.settings import WorkerSettings
    from edge_agent.settings import EdgeSettings
    from sliceloop.config import read_section
    from training.settings import TrainerSettings

    sections = {
        "broker": BrokerSettings,
        "edge": EdgeSettings,
        "worker": WorkerSettings,
        "s3": S3Settings,
        "trainer": TrainerSettings,
    }
    for name, model in sections.items():
        assert read_section(ROOT / "sliceloop.example.toml", name, model)
