"""The cache gives back the pixels that decoding gives, whatever happens to it in between."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest

from protocol.labels import LABELS
from training.data.cache import (
    INDEX_FILE,
    PIXELS_FILE,
    SLICE_BYTES,
    CacheError,
    CacheRebuiltWarning,
    CachingStoppedError,
    MappedPixels,
    SliceCache,
)
from training.data.dataset import DataSet, load_split
from training.data.labelled import UnreadableSliceError, load_slices
from training.data.slices import LabelledSlice
from training.model.preprocess import Box

SLICES, BATCH = 24, 4


def paint(path, seed):
    random = np.random.default_rng(seed)
    frame = np.zeros((80, 100), np.uint8)
    cv2.ellipse(frame, (50, 40), (40, 30), 0, 0, 360, int(random.integers(90, 250)), thickness=-1)
    frame[30:50, 40:60] = random.integers(0, 255, (20, 20))
    assert cv2.imwrite(str(path), frame)


@pytest.fixture
def rows(tmp_path):
    """Two dozen slices of as many patients in tmp_path."""
    for i in range(SLICES):
        paint(tmp_path / f"{i}.png", i)
    return [LabelledSlice(f"{i}.png", LABELS[i % 3], f"p{i}", "here", "train") for i in range(SLICES)]


@pytest.fixture
def where(tmp_path):
    return tmp_path / "cache"


def cache(where, **options):
    return SliceCache(where, batch=BATCH, workers=2, **options)


CHILD = """
import os, resource, signal, sys
from pathlib import Path
from protocol.labels import LABELS
from training.data.cache import CacheFullError, SliceCache
from training.data.slices import LabelledSlice
folder, where, what, number = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
rows = [LabelledSlice(f"{i}.png", LABELS[i % 3], f"p{i}", "here", "train") for i in range(24)]
def on_slice(done, total):
    if what == "kill" and done == number:
        os.kill(os.getpid(), signal.SIGKILL)
if what == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
try:
    SliceCache(where, batch=4, workers=2).load(folder, rows, on_slice=on_slice)
except CacheFullError as error:
    sys.exit(str(error))
"""


def child(folder, where, what, number):
    command = [sys.executable, "-c", CHILD, str(folder), str(where), what, str(number)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_cached_pixels_are_the_decoded_ones(tmp_path, rows, where):
    """A first loading, a second one, and one without cache give the same set; progress is told to the end."""
    plain, told = load_slices(tmp_path, rows), []
    first = cache(where).load(tmp_path, rows, on_slice=lambda *progress: told.append(progress))
    assert isinstance(first.pixels, MappedPixels)
    assert first.sha256() == plain.sha256() == cache(where).load(tmp_path, rows).sha256()
    assert told[0] == (0, SLICES)
    assert told[-1] == (SLICES, SLICES)
    dataset = DataSet(tmp_path, tuple(rows))
    assert load_split(dataset, "train", cache=where).sha256() == plain.sha256()
    assert len(load_split(dataset, "val", cache=where)) == 0


def test_an_unchanged_file_is_not_read_again(tmp_path, rows, where):
    """Bytes that change while size and time of change stay are not seen; a new time of change is enough."""
    first = cache(where).load(tmp_path, rows)
    path, about = tmp_path / "3.png", (tmp_path / "3.png").stat()
    path.write_bytes(bytes(about.st_size))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert cache(where).load(tmp_path, rows).sha256() == first.sha256()
    os.utime(path)
    with pytest.raises(UnreadableSliceError, match=r"3\.png"):
        cache(where).load(tmp_path, rows)


def test_content_is_kept_once_and_changed_content_is_decoded(tmp_path, rows, where):
    """A copy of a file takes no room, a moved data set decodes nothing, and a new picture under an old name is seen."""
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
    cache(where).load(tmp_path, rows)
    assert (where / PIXELS_FILE).stat().st_size == (SLICES - 1) * SLICE_BYTES
    paint(tmp_path / "2.png", 99)
    assert cache(where).load(tmp_path, rows).sha256() == load_slices(tmp_path, rows).sha256()
    assert (where / PIXELS_FILE).stat().st_size == SLICES * SLICE_BYTES


def test_the_box_is_part_of_what_is_cached(tmp_path, rows, where):
    """The same file with another box is another slice; one that leaves the image is named."""
    boxed = [replace(rows[0], box=Box(10, 10, 70, 90)), replace(rows[0], box=Box(20, 10, 70, 90)), rows[0]]
    slices = cache(where).load(tmp_path, boxed)
    assert len({pixels.tobytes() for pixels in slices.pixels[:]}) == 3
    assert slices.sha256() == load_slices(tmp_path, boxed).sha256()
    with pytest.raises(UnreadableSliceError, match="box ends at 101, 70, outside the image of 100x80"):
        cache(where).load(tmp_path, [replace(rows[0], box=Box(10, 10, 70, 101))])


def test_choosing_and_joining_stays_in_the_file(tmp_path, rows, where):
    """Selected and joined sets hold no pixels, and indexing them gives what an array would."""
    slices, plain = cache(where).load(tmp_path, rows), load_slices(tmp_path, rows)
    chosen = slices.select([5, 1, 1]).concat(slices.select(slices.labels == 2))
    assert isinstance(chosen.pixels, MappedPixels)
    assert chosen.sha256() == plain.select([5, 1, 1]).concat(plain.select(plain.labels == 2)).sha256()
    assert np.array_equal(slices.pixels[np.array([7, 0])], plain.pixels[np.array([7, 0])])
    assert np.array_equal(slices.pixels[3:9:2], plain.pixels[3:9:2])
    assert slices.concat(plain).sha256() == plain.concat(plain).sha256()
    assert len(slices.select([]).pixels[:]) == 0


@pytest.mark.parametrize("after", [1, BATCH + 2, SLICES - 1])
def test_kill_9_costs_a_batch_and_no_pixel(tmp_path, rows, where, after):
    """A process that was killed at any slice leaves whole batches behind; the next one ends with true pixels."""
    assert child(tmp_path, where, "kill", after).returncode == -signal.SIGKILL
    told = []
    slices = cache(where).load(tmp_path, rows, on_slice=lambda done, _: told.append(done))
    assert told[0] >= after - BATCH
    assert slices.sha256() == load_slices(tmp_path, rows).sha256()


def test_what_a_kill_left_behind_the_last_named_slice_is_written_over(tmp_path, rows, where):
    """Pixels that reached the file but not the index, in part or whole, are never taken for a slice."""
    cache(where).load(tmp_path, rows[:10])
    with (where / PIXELS_FILE).open("ab") as file:
        file.write(os.urandom(SLICE_BYTES * 2 + 1234))
    assert cache(where).load(tmp_path, rows).sha256() == load_slices(tmp_path, rows).sha256()


def test_two_writers_share_a_cache(tmp_path, rows, where):
    """Two that fill one cache at once both end with the true pixels."""
    expected, found = load_slices(tmp_path, rows).sha256(), []
    start = threading.Barrier(2)

    def fill(chosen):
        start.wait(10)
        found.append(cache(where).load(tmp_path, chosen).sha256())

    threads = [threading.Thread(target=fill, args=(rows,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [expected, expected]
    assert cache(where).load(tmp_path, rows).sha256() == expected


def test_a_full_disk_is_named_and_the_rest_is_cached_later(tmp_path, rows, where):
    """Where no further byte can be written caching ends with its own error, and goes on when there is room."""
    limit = 10 * SLICE_BYTES + 100
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    ended = child(tmp_path, where, "limit", limit)
    assert ended.returncode == 1
    assert "no room for the cache" in ended.stderr
    told = []
    slices = cache(where).load(tmp_path, rows, on_slice=lambda done, _: told.append(done))
    assert told[0] == 8
    assert slices.sha256() == load_slices(tmp_path, rows).sha256()


def test_stop_ends_after_a_batch_and_the_next_time_goes_on(tmp_path, rows, where):
    """A stop keeps what is done, says how much, and costs nothing the next time."""
    stop = threading.Event()
    with pytest.raises(CachingStoppedError) as caught:
        cache(where).load(tmp_path, rows, on_slice=lambda done, _: done >= 6 and stop.set(), stop=stop)
    assert (caught.value.done, caught.value.total) == (8, SLICES)
    told = []
    cache(where).load(tmp_path, rows, on_slice=lambda done, _: told.append(done))
    assert told[0] == 8


def test_a_corrupt_image_is_named_or_left_out(tmp_path, rows, where):
    """One damaged file in the middle stops the caching by its name, or is reported and left out; so is a lost one."""
    (tmp_path / "9.png").write_bytes((tmp_path / "9.png").read_bytes()[:60])
    (tmp_path / "11.png").unlink()
    with pytest.raises(UnreadableSliceError, match=r"11\.png: cannot be read"):
        cache(where).load(tmp_path, rows)
    with pytest.raises(UnreadableSliceError, match=r"9\.png: the image is damaged"):
        cache(where).load(tmp_path, rows[:10])
    named, told = [], []
    slices = cache(where).load(
        tmp_path,
        rows,
        on_slice=lambda *progress: told.append(progress),
        on_unreadable=lambda row, _: named.append(row.file),
    )
    kept = [row for row in rows if row.file not in ("9.png", "11.png")]
    assert named == ["11.png", "9.png"]
    assert told[-1] == (SLICES, SLICES)
    assert slices.sha256() == load_slices(tmp_path, kept).sha256()


@pytest.mark.parametrize("keep", [0, 3, SLICES - 1])
def test_a_cut_pixel_file_is_noticed_and_filled_up(tmp_path, rows, where, keep):
    """What was cut off is decoded again, the rest is not."""
    cache(where).load(tmp_path, rows)
    os.truncate(where / PIXELS_FILE, keep * SLICE_BYTES + 17)
    told = []
    with pytest.warns(CacheRebuiltWarning, match=f"cut off after {keep} of {SLICES}"):
        slices = cache(where).load(tmp_path, rows, on_slice=lambda done, _: told.append(done))
    assert told[0] == keep
    assert slices.sha256() == load_slices(tmp_path, rows).sha256()


def test_changed_pixels_and_a_garbage_index_are_noticed_and_made_again(tmp_path, rows, where):
    """A cache that is not what was written is thrown away with a warning; who mapped it before keeps the old one."""
    before = cache(where).load(tmp_path, rows)
    expected = before.sha256()
    (where / INDEX_FILE).write_bytes(os.urandom(9000))
    with pytest.warns(CacheRebuiltWarning, match="index is damaged"):
        assert cache(where).load(tmp_path, rows).sha256() == expected
    assert before.sha256() == expected
    with (where / PIXELS_FILE).open("r+b") as file:
        file.seek(4 * SLICE_BYTES)
        file.write(os.urandom(SLICE_BYTES))
    with pytest.warns(CacheRebuiltWarning, match="slice 4 of"):
        assert cache(where).load(tmp_path, rows).sha256() == expected


def test_an_index_damaged_inside_is_made_again(tmp_path, rows, where):
    """Also damage behind a sound header is found."""
    expected = cache(where).load(tmp_path, rows).sha256()
    with (where / INDEX_FILE).open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))
    with pytest.warns(CacheRebuiltWarning, match="index is damaged"):
        assert cache(where).load(tmp_path, rows).sha256() == expected


def test_a_cache_that_cannot_be_made_is_named(tmp_path, rows, where):
    """A file where the folder should be, and an index that is a folder, say what to do."""
    where.write_text("")
    with pytest.raises(CacheError, match="check the path"):
        cache(where).load(tmp_path, rows)
    where.unlink()
    (where / INDEX_FILE).mkdir(parents=True)
    with pytest.raises(CacheError, match="index"):
        cache(where).load(tmp_path, rows)


def test_rows_of_the_index_name_pixels_that_are_on_the_disk(tmp_path, rows, where):
    """After each batch the index names no more slices than the file holds."""
    held = []

    def look(done, total):
        if (where / INDEX_FILE).exists() and (where / PIXELS_FILE).exists():
            with sqlite3.connect(where / INDEX_FILE) as index:
                (named,) = index.execute("SELECT COUNT(*) FROM slices").fetchone()
            held.append((named, (where / PIXELS_FILE).stat().st_size // SLICE_BYTES))

    cache(where).load(tmp_path, rows, on_slice=look)
    assert held
    assert all(named <= there for named, there in held)
