"""A configuration becomes one frozen object, or an error that names the key and says what to do."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from broker.settings import BrokerSettings
from cloud_worker.object_store import S3Settings
from cloud_worker.settings import WorkerSettings
from edge_agent.settings import EdgeSettings
from sliceloop.config import ConfigError, read_section
from training.settings import TrainerSettings

EDGE = """
[edge]
site = "site-a"
edge = "edge-1"
data_dir = "data"
trusted_keys_dir = "trusted"
[edge.replay]
folder = "inbox"
"""


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLICELOOP_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "sliceloop.toml"
    file.write_text(EDGE)
    return file


def edge_fault(config: Path | None) -> str:
    with pytest.raises(ConfigError) as caught:
        read_section(config, "edge", EdgeSettings)
    return str(caught.value)


def test_a_section_becomes_its_frozen_settings(config: Path) -> None:
    """Values, nested sections and defaults come together in one object that nobody changes."""
    settings = read_section(config, "edge", EdgeSettings)
    assert (settings.site, settings.replay.folder, settings.replay.interval_s) == ("site-a", Path("inbox"), 1.0)
    with pytest.raises(ValidationError):
        settings.site = "site-b"


@pytest.mark.parametrize(
    ("name", "model"), [("broker", BrokerSettings), ("s3", S3Settings), ("worker", WorkerSettings)]
)
def test_a_section_that_needs_nothing_may_be_absent(config: Path, name: str, model: type) -> None:
    """Sections of defaults need neither a table nor a file."""
    assert read_section(config, name, model) == model()
    assert read_section(None, name, model) == model()


def test_sections_are_read_apart(config: Path) -> None:
    """One file serves all processes: each reads its own section, whatever is wrong in another's."""
    config.write_text(
        EDGE + '[worker]\nname = "w"\nfoo = 1\n[trainer]\nwork_dir = "w"\n[trainer.training]\nepochs = 3\n'
    )
    assert read_section(config, "edge", EdgeSettings).edge == "edge-1"
    assert read_section(config, "trainer", TrainerSettings).training.epochs == 3
    with pytest.raises(ConfigError, match=r"worker\.foo"):
        read_section(config, "worker", WorkerSettings)


def test_the_environment_stands_above_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable sets a key of a section, also of a nested one, and leaves the others to the file."""
    monkeypatch.setenv("SLICELOOP_EDGE__EDGE", "edge-9")
    monkeypatch.setenv("SLICELOOP_EDGE__REPLAY__INTERVAL_S", "0.25")
    settings = read_section(config, "edge", EdgeSettings)
    assert (settings.edge, settings.site) == ("edge-9", "site-a")
    assert (settings.replay.interval_s, settings.replay.folder) == (0.25, Path("inbox"))


def test_the_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container needs no file."""
    values = {"SITE": "s", "EDGE": "e", "DATA_DIR": "d", "TRUSTED_KEYS_DIR": "t", "REPLAY__FOLDER": "f"}
    for name, value in values.items():
        monkeypatch.setenv(f"SLICELOOP_EDGE__{name}", value)
    assert read_section(None, "edge", EdgeSettings).replay.folder == Path("f")


def test_other_variables_of_ours_are_no_settings(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of the command's own options do not disturb."""
    monkeypatch.setenv("SLICELOOP_CONFIG", str(config))
    monkeypatch.setenv("SLICELOOP_LOG_LEVEL", "debug")
    assert read_section(config, "edge", EdgeSettings).edge == "edge-1"


def test_a_missing_key_is_named_with_both_places_to_set_it(config: Path) -> None:
    """The message names key, file and variable."""
    config.write_text(EDGE.replace('site = "site-a"\n', "").replace('folder = "inbox"\n', ""))
    fault = edge_fault(config)
    assert f"edge.site is missing in {config}: set it there, or SLICELOOP_EDGE__SITE" in fault
    assert f"edge.replay.folder is missing in {config}: set it there, or SLICELOOP_EDGE__REPLAY__FOLDER" in fault


def test_a_missing_section_is_named() -> None:
    """Without a file the message says so."""
    assert edge_fault(None) == "edge is missing (no --config was given): set it there, or SLICELOOP_EDGE"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("max_outbox_row = 3", "edge.max_outbox_row in {} is foreign (did you mean 'max_outbox_rows'?): correct"),
        ("zzzz = 3", "edge.zzzz in {} is foreign: correct or remove it"),
        ("[edge.replay]\nintervall_s = 1", "edge.replay.intervall_s in {} is foreign (did you mean 'interval_s'?)"),
    ],
)
def test_a_foreign_key_is_named_with_its_neighbour(config: Path, line: str, fault: str) -> None:
    """A key that nobody reads is an error, and the nearest known one is offered, also in a nested section."""
    if line.startswith("["):
        config.write_text(EDGE + line.split("\n")[1])
    else:
        config.write_text(EDGE.replace("[edge]", f"[edge]\n{line}"))
    assert fault.format(config) in edge_fault(config)


def test_a_setting_that_has_moved_says_where_to(config: Path) -> None:
    """A worker's file of an earlier sliceloop has the releases' settings under the worker."""
    config.write_text('[worker.release]\nname = "ct"\n')
    with pytest.raises(ConfigError, match=r"worker\.release in .* has moved: write its settings under \[release\]"):
        read_section(config, "worker", WorkerSettings)


def test_a_foreign_section_is_named(config: Path) -> None:
    """A section that no process reads is an error, with the nearest and all known ones."""
    config.write_text(EDGE + "[egde]\n[zzzz]\n")
    fault = edge_fault(config)
    assert f"[egde] in {config} is foreign (did you mean 'edge'?); [zzzz] in {config} is foreign" in fault
    assert fault.endswith("known are broker, edge, worker, release, s3, trainer")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('"site-a"', "5", "edge.site in {}: Input should be a valid string"),
        ('"site-a"', '"Site A"', "edge.site in {}: String should match pattern"),
        ("[edge.replay]", "max_outbox_rows = 0\n[edge.replay]", "edge.max_outbox_rows in {}: Input should be greater"),
        (
            "[edge.replay]",
            '[edge.replay]\ninterval_s = "soon"',
            "edge.replay.interval_s in {}: Input should be a valid",
        ),
    ],
)
def test_a_wrong_value_is_named(config: Path, old: str, new: str, fault: str) -> None:
    """A value of the wrong type or out of range names its key, the file and the rule."""
    config.write_text(EDGE.replace(old, new))
    assert fault.format(config) in edge_fault(config)


def test_a_section_that_is_no_table_is_named(config: Path) -> None:
    """A plain value where a table should be is no crash."""
    config.write_text('edge = "x"\n')
    assert f"edge in {config}" in edge_fault(config)


def test_every_fault_is_told_at_once(config: Path) -> None:
    """One run tells all that is wrong, a line each."""
    config.write_text(EDGE.replace('"site-a"', "5") + "foo = 1\n")
    assert len(edge_fault(config).splitlines()) == 2


@pytest.mark.parametrize("content", [b"[edge", b"edge: yaml", b"\xff\xfe\x00", b"a = 1\na = 2"])
def test_a_file_that_is_no_toml_is_named(config: Path, content: bytes) -> None:
    """Garbage is named as such, with its file."""
    config.write_bytes(content)
    assert edge_fault(config).startswith(f"{config} is not TOML")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A file that is not there, or is a folder, is named, and how to give another."""
    for path in (tmp_path / "nowhere.toml", tmp_path):
        assert f"{path} cannot be read" in edge_fault(path)
        assert "give an existing file by --config" in edge_fault(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("SLICELOOP_EDGE", "garbage"), ("SLICELOOP_EDGE__REPLAY", "{garbage"), ("SLICELOOP_EDGE", "[1]")],
)
def test_a_variable_that_is_no_section_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A whole section in a variable is JSON; what is not, is an error of ours with the section's name."""
    monkeypatch.setenv(name, value)
    assert "edge" in edge_fault(config).lower()
    assert "garbage" not in edge_fault(config)


def test_values_are_never_printed(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong, a value is not repeated: it may be a password."""
    secret = "hunter2-hunter2"
    config.write_text(f'[broker]\npassword = "{secret}"\nport = "{secret}"\nusername = 5\n')
    monkeypatch.setenv("SLICELOOP_WORKER__LEDGER_URL", f"postgresql+psycopg://u:{secret}@h/d")
    monkeypatch.setenv("SLICELOOP_WORKER__POLL_S", secret)
    monkeypatch.setenv("SLICELOOP_S3__SECRET_KEY", secret)
    for name, model in (("broker", BrokerSettings), ("worker", WorkerSettings), ("s3", S3Settings)):
        with pytest.raises(ConfigError) as caught:
            read_section(config, name, model)
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value)
    config.write_text(f'[broker]\npassword = "{secret}\n')
    with pytest.raises(ConfigError) as caught:
        read_section(config, "broker", BrokerSettings)
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("reconnect_min_s = 9\nreconnect_max_s = 1", "reconnect_max_s must not be less than reconnect_min_s"),
        ('tls_cert_file = "c"', "tls_cert_file and tls_key_file belong together"),
    ],
)
def test_keys_that_do_not_fit_together_are_named(config: Path, lines: str, fault: str) -> None:
    """A rule over several keys is told with its section."""
    config.write_text(f"[broker]\n{lines}\n")
    with pytest.raises(ConfigError, match=fault) as caught:
        read_section(config, "broker", BrokerSettings)
    assert str(caught.value).startswith("broker in ")


def test_the_example_retrains_on_old_patients_too() -> None:
    """By hand, as the README says, a retraining learns from the first data as well, and for long enough."""
    example = read_section(Path(__file__).parents[2] / "sliceloop.example.toml", "trainer", TrainerSettings)
    assert example.base_data == Path("data")
    assert (example.training.epochs, example.training.batch, example.training.learning_rate) == (40, 16, 5e-3)
