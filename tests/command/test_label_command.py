"""The reviewer's desk in the terminal, on a ledger with real rows."""

import csv
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_here import run_here
from command_parts import NOW, newest_labels, store_disagreement

from cloud_worker.dashboard.picture import UPPER_HALF
from cloud_worker.embedded_s3 import EmbeddedS3
from cloud_worker.ledger import Ledger
from cloud_worker.object_store import ObjectStore, S3Settings
from protocol.labels import Label
from sliceloop.labels import LabelInputError, export_open, import_labels, set_one

IDS = ("aaaa0001", "aaab0002", "bbbb0003")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A ledger with three open disagreements."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    with Ledger(url) as ledger:
        for number, slice_id in enumerate(IDS, start=1):
            store_disagreement(ledger, slice_id, number)
    return url


@pytest.fixture
def config(tmp_path: Path, url: str) -> Path:
    file = tmp_path / "worker.toml"
    file.write_text(f'[worker]\nledger_url = "{url}"\n')
    return file


def table(tmp_path: Path, *rows: str, header: str = "slice_id,label,reviewer,why") -> Path:
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def waiting(url: str) -> list[str]:
    with Ledger(url) as ledger:
        return [each.slice.slice_id for each in ledger.open_disagreements()]


# As commands.


def test_a_reviewer_lists_and_labels(tmp_path: Path, config: Path, url: str) -> None:
    """Open disagreements are listed oldest first, with both readings; a label closes one."""
    listed = run_here("label", "list", "--config", config, cwd=tmp_path)
    assert listed.code == 0, listed.err
    assert "3 open disagreements — research use only" in listed.out
    assert [listed.out.index(slice_id) for slice_id in IDS] == sorted(listed.out.index(slice_id) for slice_id in IDS)
    assert "Normal 0.80" in listed.out
    assert "COVID-19 0.80" in listed.out
    arguments = ("label", "set", "aaaa", "COVID-19", "--reviewer", "Dr A", "--why", "ground glass")
    ended = run_here(*arguments, "--config", config, cwd=tmp_path)
    assert (ended.code, ended.out) == (0, "aaaa0001 is COVID-19, says Dr A\n")
    assert newest_labels(url) == {"aaaa0001": "COVID-19"}
    with Ledger(url) as ledger:
        (label,) = ledger.labels_of("aaaa0001")
        assert (label.reviewer, label.why) == ("Dr A", "ground glass")
    one = run_here("label", "list", "--limit", 1, cwd=tmp_path, env={"SLICELOOP_CONFIG": str(config)})
    assert "2 open disagreements" in one.out
    assert "aaab0002" in one.out
    assert "bbbb0003" not in one.out


def test_a_reviewer_fills_in_a_file(tmp_path: Path, config: Path, url: str) -> None:
    """The exported file, filled in for some rows, is taken back; rows left empty stay open."""
    out = tmp_path / "open.csv"
    ended = run_here("label", "list", "--csv", out, "--config", config, cwd=tmp_path)
    assert (ended.code, ended.out) == (0, f"3 open disagreements in {out}\n")
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["slice_id"] for row in rows] == list(IDS)
    rows[0] |= {"label": "Pneumonia", "reviewer": "Dr B"}
    rows[2] |= {"label": "Normal"}
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    ended = run_here("label", "import", out, "--reviewer", "Dr A", "--config", config, cwd=tmp_path)
    assert (ended.code, ended.out) == (0, "2 labels set\n"), ended.err
    assert newest_labels(url) == {"aaaa0001": "Pneumonia", "bbbb0003": "Normal"}
    assert waiting(url) == ["aaab0002"]


def test_what_cannot_be_set_ends_with_one_line(tmp_path: Path, config: Path, url: str) -> None:
    """A wrong file ends with exit code 2 and one line that names its own line; the ledger is as before."""
    path = table(tmp_path, "aaaa0001,Normal,Dr A,", "aaab0002,Covid,Dr A,")
    ended = run_here("label", "import", path, "--config", config, cwd=tmp_path)
    assert ended.code == 2
    assert ended.err == (
        f"sliceloop: {path}, line 3: label 'Covid' is none of Normal, Pneumonia, COVID-19; nothing was set\n"
    )
    assert newest_labels(url) == {}
    ended = run_here("label", "list", "--csv", "nowhere/open.csv", "--config", config, cwd=tmp_path)
    assert ended.code == 2
    assert "nowhere/open.csv" in ended.err
    assert "Traceback" not in ended.err


def test_a_ledger_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """A file that is no ledger is named, with the ledger's own advice; a password in the URL is not."""
    config = tmp_path / "worker.toml"
    (tmp_path / "ledger.sqlite").write_text("this is a text, and no database")
    config.write_text('[worker]\nledger_url = "sqlite:///ledger.sqlite"\n')
    ended = run_here("label", "list", "--config", config, cwd=tmp_path)
    assert ended.code == 2
    assert "/ledger.sqlite" in ended.err
    assert "check that it runs, that its folder exists" in ended.err
    config.write_text('[worker]\nledger_url = "postgresql+psycopg://me:hunter2@127.0.0.1:1/db"\n')
    ended = run_here("history", "--config", config, cwd=tmp_path)
    assert ended.code == 2
    assert "hunter2" not in ended.out + ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("label", "list"),
        ("label", "list", "--csv", "open.csv"),
        ("label", "show", "aaaa"),
        ("label", "set", "aaaa", "Normal", "--reviewer", "Dr A"),
        ("history",),
    ],
)
def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Without -c, or in another folder, nobody reads "0 open disagreements" from a ledger that was just made."""
    ended = run_here(*arguments, cwd=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "sliceloop: sliceloop-ledger.sqlite does not exist; did you forget -c?\n"
    config = tmp_path / "worker.toml"
    config.write_text('[worker]\nledger_url = "sqlite:///state/ledger.sqlite"\n')
    ended = run_here(*arguments, "-c", config, cwd=tmp_path)
    assert ended.code == 2
    assert f"{tmp_path}/state/ledger.sqlite does not exist; {config} names it" in ended.err
    assert list(tmp_path.iterdir()) == [config]


def test_the_list_fits_into_80_columns(tmp_path: Path) -> None:
    """Where both readers are uncertain and the source has a long name each slice is still one line, its id whole."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    ids = [f"{number}cb8d5541a2f" for number in range(3)]
    with Ledger(url) as ledger:
        for number, slice_id in enumerate(ids, start=1):
            store_disagreement(ledger, slice_id, number, "hospital-of-the-long-name", uncertain=True)
    env = {"SLICELOOP_WORKER__LEDGER_URL": url, "COLUMNS": "80"}
    lines = run_here("label", "list", cwd=tmp_path, env=env).out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if "cb8d" in line] == ids
    for line in lines:
        if "cb8d" in line:
            assert "Normal 0.45?" in line
            assert "COVID-19 0.45?" in line
            assert line.split()[-1] in ("min", "d")


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    """A real S3 server for the slices that are shown."""
    with EmbeddedS3(tmp_path_factory.mktemp("s3")) as server:
        yield server


def test_a_slice_to_be_labelled_is_shown(
    tmp_path: Path, url: str, s3_server: EmbeddedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reviewer sees the slice and both readings, and gets the very PNG for a better screen."""
    for name, value in s3_server.credentials_env().items():
        monkeypatch.setenv(name, value)
    png = bytes(cv2.imencode(".png", np.tile(np.arange(256, dtype=np.uint8), (256, 1)))[1])
    store = ObjectStore(S3Settings(endpoint_url=s3_server.endpoint_url, bucket="shown"))
    store.ensure_bucket()
    store.put("slices/aaaa0001.png", png, "image/png")
    config = tmp_path / "worker.toml"
    s3 = f'[s3]\nendpoint_url = "{s3_server.endpoint_url}"\nbucket = "shown"\n'
    config.write_text(f'[worker]\nledger_url = "{url}"\n{s3}')
    ended = run_here("label", "show", "aaaa", "--image", "slice.png", "-c", config, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert (tmp_path / "slice.png").read_bytes() == png
    for said in ("aaaa0001 from phantom-site-b", "research use only", "Normal 0.80", "COVID-19 0.80"):
        assert said in ended.out
    colours = {"NO_COLOR": "", "FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    drawn = run_here("label", "show", "aaaa", "-c", config, cwd=tmp_path, env={**colours, "LINES": "24"})
    assert drawn.code == 0, drawn.err
    assert 8 <= len([line for line in drawn.out.splitlines() if UPPER_HALF in line]) <= 24 - 6
    missing = run_here("label", "show", "bbbb", "-c", config, cwd=tmp_path)
    assert missing.code == 2
    assert "slices/bbbb0003.png" in missing.err


def test_history_tells_decisions_and_releases(tmp_path: Path, config: Path, url: str) -> None:
    """Why retrainings were asked for or not is there to read, on an empty ledger too."""
    with Ledger(url) as ledger:
        ledger.record_decision(NOW, False, "3 of 20 new labels", 3)
        ledger.record_decision(NOW + timedelta(minutes=5), True, "20 new labels", 20)
    ended = run_here("history", "--config", config, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert ended.out.index("3 of 20 new labels") < ended.out.index("20 new labels", ended.out.index("3 of 20") + 10)
    for title in ("retrain policy", "candidates", "releases"):
        assert title in ended.out


# The same by call, where a process a case would only be slow.


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (["aaaa0001,Normal,Dr A,", "zzzz,Normal,Dr A,"], "line 3: .*'zzzz'.*nothing was set"),
        (["aaaa0001,Normal,Dr A,", "aaab,Normal,Dr A,"], "line 3: .*'aaab'.*nothing was set"),
        (["aaaa0001,normal,Dr A,"], "line 2: label 'normal' is none of Normal"),
        (["aaaa0001,Normal,Dr A,", "", "aaab0002,x,Dr A,"], "line 4: label 'x'"),
        (["aaaa0001,Normal,Dr A,", "aaab0002,Normal,,"], "line 3: no reviewer: fill the column, or give --reviewer"),
        (["aaaa0001,Normal,Dr A,", "aaab0002,Normal"], "line 3: no reviewer"),
        (["aaaa0001,Normal,Dr A,", "aaab0002,Normal," + "A" * 201 + ","], "line 3: .*200"),
        (['aaaa0001,Normal,Dr A,"two\nlines"', "aaab0002,x,Dr A,"], "line 4: label 'x'"),
        (["aaaa0001,Normal,Dr A,", ",Normal,Dr A,"], "line 3: .*nothing was set"),
    ],
)
def test_one_wrong_line_sets_nothing(tmp_path: Path, url: str, rows: list[str], fault: str) -> None:
    """An unknown slice, an unknown label, nobody who says so: the line is named, and no label of the file is set."""
    with pytest.raises(LabelInputError, match=fault):
        import_labels(url, table(tmp_path, *rows), "")
    assert newest_labels(url) == {}
    assert waiting(url) == list(IDS)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"slice_id,reviewer\naaaa0001,Dr A\n", "line 1: no column label"),
        (b"", "line 1: no column label, slice_id"),
        ("slice_id,label\näöü,Normal\n".encode("utf-16"), "save it as CSV in UTF-8"),
        (b"slice_id,label\naaaa0001," + b"x" * 200_000, "save it as CSV in UTF-8|is none of"),
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path: Path, url: str, content: bytes, fault: str) -> None:
    """A missing column and what is no CSV are told by name."""
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(LabelInputError, match=fault):
        import_labels(url, path, "Dr A")
    with pytest.raises(LabelInputError, match=r"nowhere\.csv cannot be read"):
        import_labels(url, tmp_path / "nowhere.csv", "Dr A")


def test_a_table_from_a_spreadsheet_is_read(tmp_path: Path, url: str) -> None:
    """A byte order mark, spaces, further columns, another order and CRLF are no hindrance."""
    path = tmp_path / "labels.csv"
    path.write_bytes("\ufeffwhy,label,slice_id,x\r\nseen, Normal ,aaaa0001,1\r\n,,aaab0002,2\r\n".encode())
    assert import_labels(url, path, "Dr A") == 1
    assert newest_labels(url) == {"aaaa0001": "Normal"}


def test_importing_twice_is_importing_once(tmp_path: Path, url: str) -> None:
    """The same file again changes nothing; another word of the same reviewer counts, and the first is kept."""
    path = table(tmp_path, "aaaa0001,Normal,Dr A,")
    import_labels(url, path, "")
    import_labels(url, path, "")
    with Ledger(url) as ledger:
        assert len(ledger.labels_of("aaaa0001")) == 1
    import_labels(url, table(tmp_path, "aaaa0001,Pneumonia,Dr A,"), "")
    with Ledger(url) as ledger:
        assert [label.label for label in ledger.labels_of("aaaa0001")] == [Label.PNEUMONIA, Label.NORMAL]


@pytest.mark.parametrize(
    ("slice_id", "label", "reviewer", "fault"),
    [
        ("zzzz", "Normal", "Dr A", "no slice 'zzzz' in the ledger"),
        ("", "Normal", "Dr A", "no slice ''"),
        ("aaa", "Normal", "Dr A", "several slices begin with 'aaa': give more of the id"),
        ("%", "Normal", "Dr A", "no slice '%'"),
        ("aaaa", "covid", "Dr A", "label 'covid' is none of Normal, Pneumonia, COVID-19"),
        ("aaaa", "Normal", " ", "no reviewer"),
        ("aaaa", "Normal", "A" * 201, "200"),
    ],
)
def test_what_cannot_be_set_is_named(url: str, slice_id: str, label: str, reviewer: str, fault: str) -> None:
    """An unknown or ambiguous slice, an unknown label, or nobody who says so is named, and nothing is set."""
    with pytest.raises(Exception, match=fault):
        set_one(url, slice_id, label, reviewer, "")
    assert newest_labels(url) == {}


def test_the_beginning_of_an_id_is_enough(url: str) -> None:
    """As many characters as tell a slice apart are enough, and its full id comes back."""
    assert set_one(url, "aaab", "COVID-19", "Dr A", "") == "aaab0002"


def test_every_open_disagreement_is_exported(tmp_path: Path, url: str) -> None:
    """The export has all of them, whatever a list shows at once; with none left it has a header alone."""
    path = tmp_path / "open.csv"
    assert export_open(url, path) == 3
    for slice_id in IDS:
        set_one(url, slice_id, "Normal", "Dr A", "")
    assert export_open(url, path) == 0
    assert len(path.read_text().splitlines()) == 1
