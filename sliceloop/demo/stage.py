"""The demo's folder: slices, roles, keys and one real configuration file for each process."""

import csv
import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.labels import Label
from sliceloop.demo.roles import Roles, deal
from sliceloop.keys import KeyFolder, new_keys
from training.data.labelled import LABELS_FILE, read_labels
from training.data.phantom import Cohort, write_phantoms
from training.data.slices import LabelledSlice

SITE = "site-b"
EDGES = ("edge-1", "edge-2")
HOME = "phantom-site-a"
SUFFIXES = {".png", ".jpg", ".jpeg", ".dcm"}
SLICES_A_PATIENT = 3
TEACHERS_A, TEACHERS_B, JUDGES_B = 14, 28, 15
"""Phantom patients of each class that teach (of the home site and of the other) and that judge."""
INPUT_PX = 64
EDGE_ARCHITECTURE, SECOND_ARCHITECTURE = "squeezenet1_1_bn", "squeezenet1_0_bn"
"""What learns from scratch within a minute on one core; the second reader costs twice the edge's multiplications."""
BATCH = 16
RETRAIN_EPOCHS = 50
SHADOW_SLICES, PROBATION_SLICES = 12, 4
"""Few, so that the canary has done before the slices are at an end; in the shadow the swap's gap has neighbours."""


class NoImagesError(ValueError):
    """A folder without any file to stream."""


@dataclass(frozen=True)
class StreamFile:
    """A file to stream: the reviewer's label when it is known, and the SHA-256 by which the ledger knows it."""

    path: Path
    sha256: str
    label: Label | None
    patient_id: str
    source: str


@dataclass(frozen=True)
class Stage:
    """Everything that is prepared before a process starts."""

    folder: Path
    images: str
    roles: Roles
    stream: tuple[StreamFile, ...]
    evaluation_data: str
    labelled: bool

    def edge_files(self, index: int) -> list[StreamFile]:
        """Return the files of one edge: patients are not split between edges."""
        patients = sorted({file.patient_id for file in self.stream})
        mine = {patient for number, patient in enumerate(patients) if number % len(EDGES) == index}
        return [file for file in self.stream if file.patient_id in mine]


def prepare_stage(
    folder: Path, cache: Path, images: Path | None, n_slices: int, seed: int, on_slice: Callable[[int, int], None]
) -> Stage:
    """Make phantoms or read the given folder, and deal the patients; raises what reading and dealing raise."""
    if images is not None and not images.is_dir():
        raise NoImagesError(f"{images} is no folder; give one with PNG, JPEG or DICOM files by --images")
    if images is not None and (images / LABELS_FILE).exists():
        rows = [_absolute(images, row) for row in read_labels(images)]
        roles = deal(_without_doubles(rows), n_slices, seed)
        stream = tuple(_labelled_file(row) for row in roles.stream)
        stage = Stage(folder, str(images), roles, stream, f"{images}, split test", True)
    else:
        unlabelled = tuple(_unlabelled(images, n_slices)) if images is not None else ()  # refuses before the drawing
        phantoms = _phantoms(cache, n_slices, seed, on_slice)
        roles = deal(phantoms, n_slices, seed, home=HOME)
        if images is None:
            stream = tuple(_labelled_file(row) for row in roles.stream)
            stage = Stage(folder, "phantoms", roles, stream, "phantom patients of site B, split test", True)
        else:
            stage = Stage(folder, str(images), roles, unlabelled, "", False)
    write_labels(folder / "first", stage.roles.first)
    write_labels(folder / "second", stage.roles.second)
    return stage


def write_labels(folder: Path, rows: Sequence[LabelledSlice]) -> None:
    """Write a labels.csv of absolute paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LABELS_FILE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "patient_id", "source", "split"])
        writer.writerows([row.file, row.label, row.patient_id, row.source, row.split] for row in rows)


def write_configs(stage: Stage, broker_port: int, s3_url: str, *, min_new_labels: int, seed: int) -> dict[str, Path]:
    """Write one TOML file a process, the keys and the site's secret; return the files by process name."""
    folder = stage.folder
    keys = new_keys(folder / "keys")
    secret = folder / "patient-secret"
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_hex(32))
    broker = {"host": "127.0.0.1", "port": broker_port, "reconnect_max_s": 3.0}
    worker = _worker(folder, keys, s3_url, min_new_labels, seed)
    configs: dict[str, dict[str, Any]] = {"worker": worker, "signer": _signer(keys, worker)}
    configs["trainer"] = {
        "trainer": {
            "work_dir": str(folder / "trainer"),
            "base_data": str(folder / "first"),
            "training": {"epochs": RETRAIN_EPOCHS, "batch": BATCH, "learning_rate": 5e-3, "threads": 1},
        }
    }
    for edge in EDGES:
        configs[edge] = _edge(folder, edge, secret)
        _write_edge_labels(stage, edge)
    paths = {}
    for name, sections in configs.items():
        paths[name] = folder / f"{name}.toml"
        paths[name].write_text(_toml({"broker": broker, **sections}))
    return paths


def inbox(folder: Path, edge: str) -> Path:
    """Name the folder that an edge of the demo replays."""
    return folder / edge / "inbox"


def _worker(folder: Path, keys: KeyFolder, s3_url: str, min_new_labels: int, seed: int) -> dict[str, Any]:
    return {
        "worker": {
            "ledger_url": f"sqlite:///{folder / 'ledger.sqlite'}",
            "second_reader_dir": str(folder / "second-model"),
            "retrain": {
                "min_new_labels": min_new_labels,
                "min_patients_per_class": 1,
                "cooldown_s": 90,
                "silence_s": 15,
                "held_back_share": 0.25,
                "val_share": 0.1,
                "seed": seed,
            },
            "disagreement": {"audit_share": 0.3},
            "assign_key_file": str(keys.assign),
            "trusted_keys_dir": str(keys.trusted),
            "rollout": {
                "rings": [
                    {"name": "canary", "edges": [f"{SITE}/{EDGES[0]}"], "abort_failures": 1, "min_s": 0},
                    {"name": "all", "share": 1.0, "abort_failures": 1, "min_s": 0},
                ],
            },
        },
        "s3": {"endpoint_url": s3_url, "bucket": "sliceloop-demo"},
    }


def _signer(keys: KeyFolder, worker: dict[str, Any]) -> dict[str, Any]:
    """Return what the engineer's machine is set to: it alone holds the release key, and no worker runs there."""
    # the first release is weak on purpose: its successor may answer otherwise nearly always, and is meant to
    otherwise = dict.fromkeys(("max_disagreement", "max_contradiction", "max_shift", "max_abstention"), 0.95)
    return {
        "release": {"signing_key_files": [str(keys.signing)], "name": "sliceloop-demo", "probation": otherwise},
        "worker": {"ledger_url": worker["worker"]["ledger_url"]},
        "s3": worker["s3"],
    }


def _edge(folder: Path, edge: str, secret: Path) -> dict[str, Any]:
    inbox(folder, edge).mkdir(parents=True, exist_ok=True)
    return {
        "edge": {
            "site": SITE,
            "edge": edge,
            "data_dir": str(folder / edge / "data"),
            "trusted_keys_dir": str(folder / "keys" / "trusted"),
            "patient_secret_file": str(secret),
            "replay": {"folder": str(inbox(folder, edge)), "interval_s": 0.0},
            "heartbeat_s": 2.0,
            "shadow_slices": SHADOW_SLICES,
            "probation_slices": PROBATION_SLICES,
        }
    }


def _write_edge_labels(stage: Stage, edge: str) -> None:
    """Tell the edge whose slices it will see, under the names that the scanner gives them; no label is among it."""
    files = stage.edge_files(EDGES.index(edge))
    with (inbox(stage.folder, edge) / LABELS_FILE).open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["file", "patient_id", "source"])
        for number, file in enumerate(files):
            writer.writerow([f"{number:05d}{file.path.suffix.lower()}", file.patient_id, file.source])


def _phantoms(cache: Path, n_slices: int, seed: int, on_slice: Callable[[int, int], None]) -> list[LabelledSlice]:
    streamed = -(-n_slices // (3 * SLICES_A_PATIENT)) + 1
    cohorts = [
        Cohort("site-a", "train", TEACHERS_A, SLICES_A_PATIENT),
        Cohort("site-b", "test", JUDGES_B, SLICES_A_PATIENT),
        Cohort("site-b", "train", TEACHERS_B + streamed, SLICES_A_PATIENT),
    ]
    folder = cache / f"phantoms-seed-{seed}-{n_slices}"
    write_phantoms(folder, cohorts, seed, on_slice)
    return [_absolute(folder, row) for row in read_labels(folder)]


def _absolute(folder: Path, row: LabelledSlice) -> LabelledSlice:
    return LabelledSlice(str((folder / row.file).absolute()), row.label, row.patient_id, row.source, row.split)


def _without_doubles(rows: Sequence[LabelledSlice]) -> list[LabelledSlice]:
    """Keep one file of those with the same bytes: the ledger tells files apart by their hash."""
    return list({_sha256(Path(row.file)): row for row in rows}.values())


def _labelled_file(row: LabelledSlice) -> StreamFile:
    path = Path(row.file)
    return StreamFile(path, _sha256(path), row.label, row.patient_id, row.source)


def _unlabelled(images: Path, n_slices: int) -> list[StreamFile]:
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise NoImagesError(f"{images} holds no PNG, JPEG or DICOM file; put some there")
    files = {_sha256(path): path for path in paths[:n_slices]}
    return [StreamFile(path, sha, None, str(path.parent), path.parent.name) for sha, path in files.items()]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _toml(sections: dict[str, Any], prefix: str = "") -> str:
    """Write nested tables of plain values; TOML's basic strings, numbers and booleans are written as in JSON.

    Tables in a list are written inline.
    """
    lines = []
    for name, value in sections.items():
        if isinstance(value, dict):
            plain = {key: item for key, item in value.items() if not isinstance(item, dict)}
            nested = {key: item for key, item in value.items() if isinstance(item, dict)}
            lines.append(f"[{prefix}{name}]\n" + "".join(f"{k} = {_toml_value(v)}\n" for k, v in plain.items()))
            lines.append(_toml(nested, f"{prefix}{name}."))
    return "\n".join(line for line in lines if line)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml_value(item)}" for name, item in value.items()) + "}"
    return json.dumps(value)
