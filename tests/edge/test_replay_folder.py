"""A folder of files becomes frames: in order, at a pace, each once, whatever happens to the folder."""

import os
import shutil
from pathlib import Path

import pytest
from edge_parts import body as body_pixels
from edge_parts import dicom_file, image_file, named, slice_file

from edge_agent.capture.frame import FrameRefusedError, SourceError
from edge_agent.capture.replay import RESCAN_S, ReplaySource
from edge_agent.outbox import Outbox
from edge_agent.settings import ReplaySettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    return inbox


def source(folder: Path, *captured: str, max_file_bytes: int = 1_000_000, **settings: object) -> ReplaySource:
    """Return a source without a pace, for which some keys were captured in an earlier life."""
    replay = ReplaySettings.model_validate({"folder": folder, "interval_s": 0.0, **settings})
    return ReplaySource(replay, captured.__contains__, max_file_bytes=max_file_bytes)


def put(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(slice_file(seed=number))


def captured(replay: ReplaySource, now_s: float = 0.0) -> list[str]:
    """Take every frame that there is at this time; return the keys."""
    keys = []
    while (frame := replay.step(now_s)) is not None:
        keys.append(named(frame.key))
        replay.taken(frame.key, now_s)
    return keys


def test_files_come_in_the_order_of_their_names(folder: Path) -> None:
    """PNG, JPEG and DICOM files of the folder and those below come by name, whatever the case of their suffix."""
    put(folder, "b.png", "a.PNG", "c/a.jpeg", "d.dcm", "c/b.JPG")
    put(folder, "notes.txt", "half.part", "labels.csv.bak", "e.tiff")
    assert captured(source(folder)) == ["a.PNG", "b.png", "c/a.jpeg", "c/b.JPG", "d.dcm"]


def test_media_type_follows_the_suffix(folder: Path) -> None:
    """What a frame is called on the wire comes from its name; its bytes are those of the file."""
    (folder / "a.JPG").write_bytes(image_file(body_pixels(), "JPEG"))
    (folder / "b.dcm").write_bytes(dicom_file())
    put(folder, "c.png")
    replay, types = source(folder), []
    while (frame := replay.step(0.0)) is not None:
        assert frame.data == (folder / named(frame.key)).read_bytes()
        types.append(frame.media_type)
        replay.taken(frame.key, 0.0)
    assert types == ["image/jpeg", "application/dicom", "image/png"]


def test_pace_is_that_of_the_given_clock(folder: Path) -> None:
    """A file is due an interval after the one before; one that was late makes nobody hurry."""
    put(folder, "a.png", "b.png", "c.png", "d.png")
    replay = source(folder, interval_s=2.0)
    assert captured(replay, 0.0) == ["a.png"]
    assert replay.step(1.99) is None
    late = replay.step(2.0)
    assert late is not None
    replay.taken(late.key, 9.0)
    assert captured(replay, 9.0) == ["c.png"]
    assert replay.step(10.99) is None
    assert captured(replay, 11.0) == ["d.png"]


def test_a_frame_comes_again_until_it_is_taken(folder: Path) -> None:
    """A frame that the outbox could not keep is offered again."""
    put(folder, "a.png", "b.png")
    replay = source(folder)
    assert [named(replay.step(0.0).key) for _ in range(3)] == ["a.png"] * 3
    replay.taken(replay.step(0.0).key, 0.0)
    assert named(replay.step(0.0).key) == "b.png"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_labels_csv_names_patient_and_source(folder: Path, mark: str) -> None:
    """Patient and source come from labels.csv, with or without a byte order mark; its other columns are not read."""
    put(folder, "a.png", "sub/b.png", "unlisted.png")
    rows = "label,file,patient_id,source\nNormal,a.png,p1,here\nCOVID-19,sub/b.png,p2,there\n"
    (folder / "labels.csv").write_text(mark + rows, encoding="utf-8")
    replay, seen = source(folder), {}
    while (frame := replay.step(0.0)) is not None:
        seen[named(frame.key)] = frame.patient_id, frame.source
        replay.taken(frame.key, 0.0)
    assert seen == {
        "a.png": ("p1", "here"),
        "sub/b.png": ("p2", "there"),
        "unlisted.png": (f"folder:{folder}", "replay"),
    }


def test_without_labels_csv_a_folder_is_one_patient(folder: Path) -> None:
    """Files without a list count as one patient a folder, so that no patient is ever torn in two."""
    put(folder, "p1/a.png", "p1/b.png", "p2/a.png")
    replay, seen = source(folder), []
    while (frame := replay.step(0.0)) is not None:
        assert not frame.patient_known
        seen.append((frame.patient_id, frame.source))
        replay.taken(frame.key, 0.0)
    assert seen[0] == seen[1] == (f"folder:{folder / 'p1'}", "replay")
    assert seen[2] == (f"folder:{folder / 'p2'}", "replay")


@pytest.mark.parametrize(
    ("elements", "patient"),
    [
        ({"PatientID": "MRN-7", "StudyInstanceUID": "1.2.3"}, "MRN-7"),
        ({"PatientID": "", "StudyInstanceUID": "1.2.3"}, "1.2.3"),
        ({}, "folder"),
    ],
)
def test_a_dicom_file_names_its_patient(folder: Path, elements: dict[str, str], patient: str) -> None:
    """Without labels.csv a DICOM file belongs to its PatientID, else to its study, else to its folder."""
    (folder / "a.dcm").write_bytes(dicom_file(**elements))
    frame = source(folder).step(0.0)
    assert frame is not None
    assert frame.patient_id.split(":")[0] == patient


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"file,source\na.png,here\n", "no column patient_id"),
        (b"", "no column file, patient_id, source"),
        ("file,patient_id,source\nä.png,p,s\n".encode("utf-16"), "save it as UTF-8"),
        (b"file,patient_id,source\na.png," + b"p" * 200_000 + b",s\n", "labels.csv"),
    ],
)
def test_a_labels_csv_that_cannot_be_used_is_named(folder: Path, content: bytes, fault: str) -> None:
    """A labels.csv without our columns, or that is no such text, stops the reading with its name and what to do."""
    put(folder, "a.png")
    (folder / "labels.csv").write_bytes(content)
    replay = source(folder)
    with pytest.raises(SourceError, match=fault):
        replay.step(0.0)
    (folder / "labels.csv").write_text("file,patient_id,source\na.png,p1,here\n")
    assert captured(replay, 1.0) == ["a.png"]


def test_a_short_row_of_labels_csv_is_no_reason_to_stop(folder: Path) -> None:
    """A row that ends early gives what it has."""
    put(folder, "a.png", "b.png")
    (folder / "labels.csv").write_text("file,patient_id,source\na.png,p1\nb.png\n")
    frame = source(folder).step(0.0)
    assert frame is not None
    assert (frame.patient_id, frame.source) == ("p1", "")
    assert captured(source(folder)) == ["a.png", "b.png"]


def test_new_files_are_found_while_it_runs(folder: Path) -> None:
    """A file that comes later is captured, also one whose name stands before those that are done."""
    put(folder, "b.png")
    replay = source(folder)
    assert captured(replay, 0.0) == ["b.png"]
    put(folder, "a.png", "c.png")
    assert captured(replay, RESCAN_S) == ["a.png", "c.png"]
    assert captured(replay, 2 * RESCAN_S) == []


def test_what_was_captured_before_a_restart_is_not_captured_again(folder: Path, tmp_path: Path) -> None:
    """The outbox remembers which files were kept or refused, over a restart."""
    put(folder, "a.png", "b.png", "c.png", "d.png")
    replay = ReplaySettings(folder=folder, interval_s=0)
    path = tmp_path / "outbox.sqlite"
    asked: list[str] = []
    ReplaySource(replay, lambda key: bool(asked.append(key))).step(0.0)
    keys = {named(key): key for key in asked}
    with Outbox(path, max_rows=10, max_bytes=1000) as outbox:
        outbox.add(keys["a.png"], "slice-1", 1, [])
        outbox.refuse(keys["c.png"], "no slice")
    with Outbox(path, max_rows=10, max_bytes=1000) as outbox:
        assert captured(ReplaySource(replay, outbox.is_captured)) == ["b.png", "d.png"]


def test_a_file_that_was_still_being_copied_comes_again_when_it_is_whole(folder: Path) -> None:
    """Half a file may be refused; whole, it is another one, and so is a new slice under an old name."""
    (folder / "a.png").write_bytes(b"\x89PNG")
    replay = source(folder)
    half = replay.step(0.0)
    replay.taken(half.key, 0.0)
    put(folder, "a.png")
    whole = replay.step(10.0)
    assert (named(half.key), named(whole.key)) == ("a.png", "a.png")
    assert whole.key != half.key
    assert whole.data == (folder / "a.png").read_bytes()


def test_an_empty_folder_is_said_and_waited_for(folder: Path) -> None:
    """A folder without files is no end: it says what to do, and what is put there is captured."""
    replay = source(folder)
    with pytest.raises(SourceError, match="holds no PNG, JPEG or DICOM file yet; put some there"):
        replay.step(0.0)
    put(folder, "a.png")
    assert captured(replay, 1.0) == ["a.png"]


@pytest.mark.parametrize("follow", [True, False])
def test_an_empty_folder_is_waited_for_whether_followed_or_not(folder: Path, follow: bool) -> None:
    """Not to follow means to stop after the last file, not before the first."""
    replay = source(folder, follow=follow)
    with pytest.raises(SourceError):
        replay.step(0.0)
    put(folder, "a.png")
    assert captured(replay, 1.0) == ["a.png"]


def test_a_folder_that_is_not_followed_ends(folder: Path) -> None:
    """Without follow the source is finished after the last file."""
    put(folder, "a.png")
    replay = source(folder, follow=False)
    assert captured(replay) == ["a.png"]
    assert replay.step(1.0) is None
    assert replay.finished
    put(folder, "b.png")
    assert captured(replay, 2.0) == []


def test_a_folder_may_vanish_and_come_back(folder: Path) -> None:
    """While the folder is away that is said; when it is back, the rest is captured, and nothing twice."""
    put(folder, "a.png", "b.png")
    replay = source(folder)
    first = replay.step(0.0)
    assert first is not None
    replay.taken(first.key, 0.0)
    away = folder.with_name("away")
    folder.rename(away)
    assert replay.step(0.0) is None  # b.png is gone
    with pytest.raises(SourceError, match=r"does not exist; create it or set edge\.replay\.folder"):
        replay.step(1.0)
    away.rename(folder)
    assert captured(replay, 2.0) == ["b.png"]
    shutil.rmtree(folder)
    with pytest.raises(SourceError, match="does not exist"):
        replay.step(3.0)


def test_a_missing_folder_is_waited_for(tmp_path: Path) -> None:
    """A folder that is not there at the start may come later."""
    replay = source(tmp_path / "later")
    with pytest.raises(SourceError, match="does not exist"):
        replay.step(0.0)
    put(tmp_path / "later", "a.png")
    assert captured(replay, 1.0) == ["a.png"]


def test_a_file_that_vanishes_is_passed_over_until_it_is_back(folder: Path) -> None:
    """A file that goes between the look and the reading is not refused: should it come back, it is captured."""
    put(folder, "a.png", "b.png", "c.png")
    replay = source(folder)
    first = replay.step(0.0)
    assert first is not None
    (folder / "b.png").unlink()
    replay.taken(first.key, 0.0)
    assert replay.step(0.0) is None
    assert captured(replay, 0.0) == ["c.png"]
    put(folder, "b.png")
    assert captured(replay, 1.0) == ["b.png"]


def test_a_file_that_cannot_be_read_is_refused_by_name(folder: Path) -> None:
    """A file that the system does not give is refused with its reason, and the next one is captured."""
    unreadable = Path("/proc/self/mem")  # of size 0, and reading it fails for root too
    if not unreadable.exists():
        pytest.skip("this system has no /proc/self/mem, a file that nobody can read from its start")
    (folder / "a.png").symlink_to(unreadable)
    put(folder, "b.png")
    replay = source(folder)
    with pytest.raises(FrameRefusedError, match="cannot be read") as caught:
        replay.step(0.0)
    assert named(caught.value.key) == "a.png"
    replay.taken(caught.value.key, 0.0)
    assert captured(replay) == ["b.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_the_right_to_read_is_refused_by_name(folder: Path) -> None:
    """A file with the wrong permissions is refused, and the reason says that it is these."""
    put(folder, "a.png")
    (folder / "a.png").chmod(0)
    with pytest.raises(FrameRefusedError, match="check its permissions"):
        source(folder).step(0.0)


def test_a_file_that_is_too_large_is_refused_unread(folder: Path) -> None:
    """A file above the limit is refused by the setting's name; a sparse terabyte does not fill the memory."""
    with (folder / "a.png").open("wb") as file:
        file.truncate(1 << 40)
    put(folder, "b.png")
    replay = source(folder)
    with pytest.raises(FrameRefusedError, match=r"exceed edge\.max_file_bytes \(1,000,000\)") as caught:
        replay.step(0.0)
    replay.taken(caught.value.key, 0.0)
    assert captured(replay) == ["b.png"]


def test_a_file_name_that_is_no_utf8_is_a_name_like_others(folder: Path, tmp_path: Path) -> None:
    """A file named in another encoding is captured, once, under a key that the outbox can keep."""
    name = b"M\xfcller.png"
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(slice_file())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with Outbox(tmp_path / "outbox.sqlite", max_rows=10, max_bytes=1000) as outbox:
        replay = ReplaySource(ReplaySettings(folder=folder, interval_s=0), outbox.is_captured)
        frame = replay.step(0.0)
        assert frame is not None
        outbox.add(frame.key, "slice-1", 1, [])
        frame.patient_id.encode()
        frame.source.encode()
        replay.taken(frame.key, 0.0)
        assert replay.step(1.0) is None
        assert ReplaySource(ReplaySettings(folder=folder), outbox.is_captured).step(0.0) is None
