"""What is written is there as a whole or not at all, and a full disk is told by the file's name."""

import os
import stat

import pytest
from full_disk import full_disk
from judging_parts import tiny_bundle, tiny_onnx, tiny_report

from training.bundle import Bundle, read_bundle, write_bundle
from training.durable import write_atomically


def test_full_disk_names_the_file(tmp_path):
    """A disk that is full while a file is written leaves the old file, and says which one could not be written."""
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"old")
    with full_disk(), pytest.raises(OSError) as caught:
        write_atomically(path, bytes(100_000))
    assert caught.value.filename == str(path)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"old"]


def test_full_disk_leaves_the_bundle_that_was_there(tmp_path):
    """A bundle that does not fit is named, leaves no part behind, and the older one can still be read."""
    tiny_bundle(tmp_path, seed=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with full_disk(), pytest.raises(OSError) as caught:
        write_bundle(tmp_path, Bundle(tiny_onnx(2) + bytes(5000), b"no checkpoint", tiny_report()))
    assert caught.value.filename == str(tmp_path / "model.onnx")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert read_bundle(tmp_path).checkpoint == b"no checkpoint"


def test_files_are_for_whom_the_umask_lets(tmp_path):
    """A picture and a report may be read by whoever may read other files of the user."""
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "curves.png", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "curves.png").stat().st_mode) == 0o644
