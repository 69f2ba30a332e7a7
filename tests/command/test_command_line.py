"""The command as a user meets it: what it makes, and one line that says what to do when it cannot."""

import os
import re
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from command_parts import sliceloop

from cloud_worker.release import load_signer
from edge_agent.outbox import Outbox
from protocol.signing import TrustedKeys, load_public_key, sign, verify


def test_new_keys_are_for_their_owner_alone_and_fit_together(tmp_path: Path) -> None:
    """The signing key is readable by its owner only; what it signs, the public key verifies."""
    ended = sliceloop("keys", "new", "keys", cwd=tmp_path)
    assert ended.code == 0, ended.err
    private = tmp_path / "keys" / "signing.pem"
    (public,) = (tmp_path / "keys" / "trusted").iterdir()
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert public.name.endswith(".pub.json")
    trusted = TrustedKeys((load_public_key(public.read_text()),))
    assert verify(sign(b"payload", [load_signer(private)]), trusted) == b"payload"
    assert "worker.release.signing_key_file" in ended.out
    assert "edge.trusted_keys_dir" in ended.out
    assert "PRIVATE" not in ended.out + ended.err


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    """A second call changes nothing and says what to do."""
    assert sliceloop("keys", "new", "keys", cwd=tmp_path).code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "keys").rglob("*") if path.is_file()}
    ended = sliceloop("keys", "new", "keys", cwd=tmp_path)
    assert ended.code == 2
    assert "signing.pem exists: choose another folder, or move the old key away first" in ended.err
    assert {path: path.read_bytes() for path in (tmp_path / "keys").rglob("*") if path.is_file()} == before


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file where a folder should be is named, without a traceback."""
    (tmp_path / "file").write_text("")
    ended = sliceloop("keys", "new", "file/keys", cwd=tmp_path)
    assert ended.code == 2
    assert "file/keys" in ended.err
    assert "Traceback" not in ended.err


def test_phantoms_are_made_with_their_labels(tmp_path: Path) -> None:
    """`sliceloop phantom` leaves PNG files and a labels.csv that says who is who; a seed gives the same bytes."""
    arguments = ("--site", "site-b", "--patients", 2, "--judges", 1, "--slices", 1, "--seed", 3)
    for out in ("one", "two"):
        ended = sliceloop("phantom", out, *arguments, cwd=tmp_path)
        assert ended.code == 0, ended.err
    lines = (tmp_path / "one" / "labels.csv").read_text().splitlines()
    assert lines[0] == "file,label,patient_id,source,split"
    splits = Counter(line.rsplit(",", 1)[1] for line in lines[1:])
    assert splits == {"train": 6, "val": 3, "test": 3}
    assert all("phantom-site-b" in line for line in lines[1:])
    for line in lines[1:]:
        name = line.split(",")[0]
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_phantoms_of_nowhere_are_refused(tmp_path: Path) -> None:
    """An unknown site is named, with those that exist."""
    ended = sliceloop("phantom", "out", "--site", "site-z", cwd=tmp_path)
    assert ended.code == 2
    assert "'site-z': known are site-a, site-b" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("egde",), "No such command 'egde'"),
        (("edge", "--foo"), "No such option: --foo"),
        (("keys", "old"), "No such command 'old'"),
        (("phantom", "out", "--patients", "0"), "Invalid value for '--patients'"),
        (("train", "data"), "Missing option '--out'"),
        (("label", "set", "abc"), "Missing argument"),
        (("edge", "--log-level", "loud"), "log level 'loud' is none of critical"),
        (("train", "data", "--out", "out", "--input-px", "16"), "Invalid value for '--input-px'"),
        (("evaluate", "model.pth", "data", "--out", "out", "--input-px", "512"), "Invalid value for '--input-px'"),
    ],
)
def test_what_the_command_does_not_know_is_said(tmp_path: Path, arguments: tuple[str, ...], fault: str) -> None:
    """An unknown command, option or value ends with exit code 2 and its name, never with a traceback."""
    ended = sliceloop(*arguments, cwd=tmp_path)
    assert ended.code == 2, ended.err
    assert fault in ended.err
    assert "Traceback" not in ended.err


def test_help_says_what_it_is_not_for(tmp_path: Path) -> None:
    """The help lists every process, and that this is for research only."""
    ended = sliceloop("--help", cwd=tmp_path)
    assert "Research use only" in ended.out
    for command in ("edge", "worker", "trainer", "dashboard", "demo", "label", "keys", "release", "phantom", "train"):
        assert command in ended.out


BLOCKER = """
import os, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in os.environ["TEST_BLOCKED_MODULES"].split(","):
            raise ModuleNotFoundError(f"No module named {name!r} (blocked by the test)", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (("label", "list"), "sqlalchemy", "cloud"),
        (("worker",), "boto3", "cloud"),
        (("train", "data", "--out", "out"), "torch", "training"),
        (("phantom", "out"), "numpy", "edge"),
        (("train", "data", "--out", "out"), "safetensors", "training"),
        (("train", "data", "--out", "out"), "onnx", "edge"),
    ],
)
def test_a_missing_extra_is_named(tmp_path: Path, arguments: tuple[str, ...], module: str, extra: str) -> None:
    """Where a part is not installed the command says how to install it."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    others = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(tmp_path), *([others] if others else [])])
    ended = sliceloop(*arguments, cwd=tmp_path, env={"PYTHONPATH": path, "TEST_BLOCKED_MODULES": module})
    assert ended.code == 2, ended.err
    assert f"is not installed: pip install 'sliceloop[{extra}]'" in ended.err


def test_a_release_needs_a_key(tmp_path: Path) -> None:
    """Without a bundle, or without a signing key, nothing is released, and each says what to do."""
    ended = sliceloop("release", "bundle", "--why", "first", cwd=tmp_path)
    assert ended.code == 2
    assert "train one with `sliceloop train`" in ended.err
    assert "Traceback" not in ended.err


EDGE = """
[edge]
site = "site-a"
edge = "edge-1"
data_dir = "state/edge"
trusted_keys_dir = "trusted"
[edge.replay]
folder = "inbox"
"""


def test_refused_files_are_told_of_an_outbox_that_is_there(tmp_path: Path) -> None:
    """In another folder no outbox is made, the one looked for is named; where no file is refused it says so."""
    config = tmp_path / "edge.toml"
    config.write_text(EDGE)
    ended = sliceloop("refused", "-c", config, cwd=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert f"{tmp_path}/state/edge/outbox.sqlite does not exist" in ended.err
    assert list(tmp_path.iterdir()) == [config]
    with Outbox(tmp_path / "state" / "edge" / "outbox.sqlite", max_rows=1, max_bytes=1) as outbox:
        ended = sliceloop("refused", "-c", config, cwd=tmp_path)
        assert (ended.code, ended.out) == (0, "none\n")
        outbox.refuse("a.png", "not an image")
    assert sliceloop("refused", "-c", config, cwd=tmp_path).out == "a.png: not an image\n"


def test_a_demo_without_images_leaves_nothing(tmp_path: Path) -> None:
    """A folder to stream that is empty is refused before a phantom is drawn, and no run's folder is left."""
    (tmp_path / "empty").mkdir()
    ended = sliceloop("demo", "--images", "empty", "--folder", "demo", cwd=tmp_path)
    assert ended.code == 2
    assert "empty holds no PNG, JPEG or DICOM file" in ended.err
    assert not (tmp_path / "demo").exists()


def test_a_log_line_begins_with_when_how_bad_and_what() -> None:
    """Lines of a file sort by time and can be read down their left side."""
    script = "from sliceloop.logs import configure_logs; import structlog, sys; configure_logs('info')\n"
    script += "structlog.get_logger().info('slice stored', an_id='x')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert re.fullmatch(r'timestamp=\S+ level=info event="slice stored" an_id=x\n', done.stderr)


def test_a_configuration_is_given_in_three_ways(tmp_path: Path) -> None:
    """The configuration can come by an option, a short one, or a variable."""
    config = tmp_path / "c.toml"
    config.write_text("[broker]\nprot = 1\n[worker]\n")
    for arguments, env in (
        (("dashboard", "--config", config), {}),
        (("dashboard", "-c", config), {}),
        (("dashboard",), {"SLICELOOP_CONFIG": str(config)}),
    ):
        ended = sliceloop(*arguments, cwd=tmp_path, env=env)
        assert ended.code == 2
        assert "broker.prot" in ended.err
        assert "did you mean 'port'?" in ended.err
