"""COVIDx CT is read as it is published, and a bad line of it is named."""

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from protocol.labels import Label
from sliceloop.cli import app
from training.data.covidx import AmbiguousListError, NoPatientError
from training.data.dataset import load_split, open_dataset
from training.data.labelled import (
    MissingColumnError,
    MissingFileError,
    NoLabelsError,
    UnknownLabelError,
    UnreadableSliceError,
)
from training.data.patient_rule import PatientRuleError
from training.data.slices import LeakError
from training.model.preprocess import Box, prepare

LISTS = {
    "train": [
        "NCP_96_1328_0035.png 2 9 8 110 90",
        "NCP_96_1328_0036.png 2 9 8 110 90",
        "CP_0_3131_0040.png 1 0 0 120 100",
        "volume-covid19-A-0300_0-0001.png 2 0 0 120 100",
        "HUST-Patient45-0007.png 2 0 0 120 100",
    ],
    "val": ["Normal_9_2_0001.png 0 0 0 120 100", "137covid_patient1_SR_2_IM00001.png 2 0 0 120 100"],
    "test": [
        "normal1_patient10_SR_2_IM00011.png 0 0 0 120 100",
        "LIDC-IDRI-0273-1.3.6.1.4.1.14519-0032.png 0 0 0 120 100",
        "volume-covid19-A-0256_1-0001.png 2 0 0 120 100",
    ],
}
METADATA = """patient id,source,country,sex,age,finding,verified finding,slice selection,view,modality
NCP_9,CNCB,China,,,COVID-19,Yes,Expert,Axial,CT
NCP_96,CNCB,China,,,COVID-19,Yes,Expert,Axial,CT
CP_0,CNCB,China,,,Pneumonia,Yes,Expert,Axial,CT
Normal_9,CNCB,China,,,Normal,Yes,N/A,Axial,CT
patient1,COVID-CTSet,Iran,F,53,COVID-19,Yes,Expert,Axial,CT
patient10,COVID-CTSet,Iran,M,54,Normal,Yes,N/A,Axial,CT
LIDC-IDRI-0273,LIDC-IDRI,USA,,,Normal,Yes,N/A,Axial,CT
HUST-Patient4,iCTCF,China,M,69,COVID-19,Yes,Automatic,Axial,CT
HUST-Patient45,iCTCF,China,M,69,COVID-19,Yes,Automatic,Axial,CT
volume-covid19-A-0256_0,TCIA,,,,COVID-19,Yes,Automatic,Axial,CT
volume-covid19-A-0300_0,TCIA,,,,COVID-19,Yes,Automatic,Axial,CT
volume-covid19-A-0256_1,COVID-19-20 Challenge,,,,COVID-19,Yes,Expert,Axial,CT
"""


def frame(name):
    random = np.random.default_rng(len(name))
    image = np.zeros((100, 120), np.uint8)
    cv2.ellipse(image, (60, 50), (50, 40), 0, 0, 360, int(random.integers(90, 250)), thickness=-1)
    return image


@pytest.fixture
def folder(tmp_path):
    """The lists, metadata.csv and 2A_images of a small COVIDx CT-2A."""
    (tmp_path / "2A_images").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "metadata.csv").write_text(METADATA)
    for split, lines in LISTS.items():
        write(tmp_path, split, lines)
        for line in lines:
            assert cv2.imwrite(str(tmp_path / "2A_images" / line.split()[0]), frame(line.split()[0]))
    return tmp_path


def write(folder, split, lines):
    (folder / f"{split}_COVIDx_CT-2A.txt").write_text("\n".join(lines) + "\n")


def test_patient_source_class_and_box_are_read(folder):
    """The longest id of metadata.csv that the file's name holds is the patient; patient1 is not patient10."""
    rows = open_dataset(folder).rows
    assert [(row.patient_id, row.source, row.label, row.split) for row in rows] == [
        ("NCP_96", "CNCB", Label.COVID_19, "train"),
        ("NCP_96", "CNCB", Label.COVID_19, "train"),
        ("CP_0", "CNCB", Label.PNEUMONIA, "train"),
        ("volume-covid19-A-0300", "TCIA", Label.COVID_19, "train"),
        ("HUST-Patient45", "iCTCF", Label.COVID_19, "train"),
        ("Normal_9", "CNCB", Label.NORMAL, "val"),
        ("patient1", "COVID-CTSet", Label.COVID_19, "val"),
        ("patient10", "COVID-CTSet", Label.NORMAL, "test"),
        ("LIDC-IDRI-0273", "LIDC-IDRI", Label.NORMAL, "test"),
        ("volume-covid19-A-0256", "COVID-19-20 Challenge", Label.COVID_19, "test"),
    ]
    assert rows[0].box == Box(top=8, left=9, bottom=90, right=110)
    assert rows[0].file == "2A_images/NCP_96_1328_0035.png"


def test_slices_are_cut_at_the_published_box(folder, tmp_path):
    """What is learned from is what lies inside the box, with and without a cache."""
    dataset = open_dataset(folder)
    expected = prepare(frame("NCP_96_1328_0035.png"), Box(8, 9, 90, 110))
    assert np.array_equal(load_split(dataset, "train").pixels[:1][0], expected)
    assert np.array_equal(load_split(dataset, "train", cache=tmp_path / "cache").pixels[:1][0], expected)
    assert not np.array_equal(expected, prepare(frame("NCP_96_1328_0035.png")))


def test_two_scans_of_one_person_in_two_splits_are_a_leak_unless_a_rule_knows_better(folder):
    """The published ids count scans A-0256_0 and A-0256_1 as two patients; we do not, and a rule may."""
    scan = "volume-covid19-A-0256_0-0001.png"
    write(folder, "train", [*LISTS["train"], f"{scan} 2 0 0 120 100"])
    assert cv2.imwrite(str(folder / "2A_images" / scan), frame(scan))
    with pytest.raises(LeakError, match="volume-covid19-A-0256"):
        open_dataset(folder)
    leaking = open_dataset(folder, allow_leak=True)
    assert leaking.leaked == ("volume-covid19-A-0256",)
    rule = r"(volume-covid19-A-\d+_\d+|NCP_\d+|CP_\d+|Normal_\d+|patient\d+|LIDC-IDRI-\d+|HUST-Patient\d+)"
    apart = open_dataset(folder, patient_rule=rule)
    assert (apart.leaked, apart.rows[2].source) == ((), "CNCB")
    checked = CliRunner().invoke(app, ["data", "check", str(folder)], env={"COLUMNS": "200"})
    assert checked.exit_code == 1
    assert "volume-covid19-A-0256: test and train" in checked.output


def test_other_layouts_are_read_too(folder):
    """Images beside the lists, names with their folder, old list names, and lines without a box are as good."""
    for path in (folder / "2A_images").iterdir():
        path.rename(folder / path.name)
    assert open_dataset(folder).rows[0].file == "NCP_96_1328_0035.png"
    (folder / "train_COVIDx_CT-2A.txt").rename(folder / "train.txt")
    (folder / "val_COVIDx_CT-2A.txt").rename(folder / "val_COVIDx-CT_v1.txt")
    (folder / "deep").mkdir()
    (folder / "NCP_96_1328_0035.png").rename(folder / "deep" / "NCP_96_1328_0035.png")
    (folder / "train.txt").write_text("deep/NCP_96_1328_0035.png 2\n\n")
    assert open_dataset(folder).rows[0].file == "deep/NCP_96_1328_0035.png"
    assert open_dataset(folder).rows[0].box is None


def test_metadata_may_tell_the_patient_of_each_file(folder):
    """A file name in metadata.csv goes before an id that the name happens to hold."""
    (folder / "metadata.csv").write_text(
        METADATA.replace("patient id", "filename,patient id").replace("\n", "\n,")[:-1]
        + "CP_0_3131_0040.png,someone else,elsewhere,,,,,,,,\n"
    )
    row = open_dataset(folder).rows[2]
    assert (row.patient_id, row.source) == ("someone else", "elsewhere")


@pytest.mark.parametrize(
    ("line", "error", "fault"),
    [
        ("NCP_96_1328_0036.png 3 9 8 110 90", UnknownLabelError, "class '3' is none of 0 .Normal.*2 .COVID-19"),
        ("NCP_96_1328_0036.png 2 9 8 110", MissingColumnError, "has 5 fields"),
        ("NCP_96_1328_0036.png 2 9 8 9 90", MissingColumnError, "box '9 8 9 90' is empty"),
        ("NCP_96_1328_0036.png 2 9 x 110 90", MissingColumnError, "not four whole numbers"),
        ("NCP_96_1328_9999.png 2 9 8 110 90", MissingFileError, "'NCP_96_1328_9999.png' is not in"),
    ],
)
def test_a_bad_line_is_named(folder, line, error, fault):
    """The message says which list, which line, and what is wrong."""
    write(folder, "train", [LISTS["train"][0], line, *LISTS["train"][2:]])
    with pytest.raises(error, match=fault) as caught:
        open_dataset(folder)
    assert (caught.value.path.name, caught.value.line) == ("train_COVIDx_CT-2A.txt", 2)


def test_a_box_outside_its_image_is_named_with_its_line(folder):
    """What only the image can tell of a line is told with the list and the line, too."""
    write(folder, "val", [LISTS["val"][0], LISTS["val"][1].replace("120 100", "600 100")])
    with pytest.raises(
        UnreadableSliceError, match=r"its box \(val_COVIDx_CT-2A.txt, line 2\) ends at 600, 100, outside"
    ):
        load_split(open_dataset(folder, allow_leak=True), "val")


def test_all_missing_files_are_counted(folder):
    """Of many missing files the first five are in the message, and all on the error."""
    write(folder, "train", [*LISTS["train"], *(f"CP_0_1_{i}.png 1 0 0 9 9" for i in range(7))])
    with pytest.raises(MissingFileError, match=r"7 listed files.*CP_0_1_4\.png'; add") as caught:
        open_dataset(folder)
    assert len(caught.value.files) == 7
    assert caught.value.line == 6


def test_a_file_without_a_patient_is_named(folder):
    """Who is in no metadata.csv, or not matched by the rule, is named with its line."""
    (folder / "metadata.csv").write_text(METADATA.replace("CP_0,", "CP_7,"))
    with pytest.raises(NoPatientError, match=r"line 3: metadata.csv has no patient for 1 .*CP_0_3131") as caught:
        open_dataset(folder)
    assert caught.value.line == 3
    with pytest.raises(NoPatientError, match="rule matches none of 8"):
        open_dataset(folder, patient_rule=r"^(NCP_\d+)")


def test_a_bad_folder_is_named(folder):
    """No metadata.csv, one without ids, two versions' lists, and lists without lines each have their own message."""
    (folder / "train_COVIDx_CT-2B.txt").write_text("")
    with pytest.raises(AmbiguousListError, match="second list of train beside"):
        open_dataset(folder)
    (folder / "train_COVIDx_CT-2B.txt").unlink()
    (folder / "metadata.csv").write_text("name,source\nx,y\n")
    with pytest.raises(MissingColumnError, match="no column 'patient id'"):
        open_dataset(folder)
    (folder / "metadata.csv").unlink()
    with pytest.raises(NoLabelsError, match=r"metadata\.csv.*or give a patient rule"):
        open_dataset(folder)
    for split in LISTS:
        write(folder, split, [])
    with pytest.raises(NoLabelsError, match="name no slice"):
        open_dataset(folder)


@pytest.mark.parametrize(("rule", "fault"), [("(", "no regular expression"), ("a", "0 groups"), ("(a)(b)", "2 groups")])
def test_a_bad_rule_is_named(folder, rule, fault):
    """A patient rule needs to be a regular expression with one group."""
    with pytest.raises(PatientRuleError, match=fault):
        open_dataset(folder, patient_rule=rule)
