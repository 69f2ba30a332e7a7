"""A recording of a camera becomes pictures: each frame or those that are due, until it ends, whatever is in it."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from cv2 import videoio_registry
from webcam_parts import (
    EACH_FRAME,
    FPS,
    Watcher,
    decoded,
    flat,
    level_of,
    play,
    png_claiming,
    scene,
    source,
    video,
)

from edge_agent.capture.frame import FrameRefusedError, SourceError


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """A video of ten frames that grow brighter by 20."""
    return video(tmp_path / "ten.avi", (flat(20 * number + 20) for number in range(10)))


def test_no_frame_of_a_fast_recording_is_dropped(ten: Path) -> None:
    """At the fast pace each frame becomes a picture, in order, though the reader is slower than the camera."""
    frames, refused = play(source(ten, **EACH_FRAME))
    assert [round(level_of(frame) / 20) for frame in frames] == list(range(1, 11))
    assert not refused


def test_each_picture_has_a_key_of_its_own(ten: Path) -> None:
    """No two pictures share a key, not even over two starts of the agent, and no key tells a path."""
    keys = [frame.key for boot in ("one", "two") for frame in play(source(ten, boot_id=boot, **EACH_FRAME))[0]]
    assert len(set(keys)) == 20
    assert not any(ten.stem in key or "/" in key for key in keys)


def test_pictures_belong_to_one_patient_a_start_unless_somebody_says(ten: Path) -> None:
    """Without a word about it all pictures of a start are of one unknown patient; a setting or a session names it."""
    unknown, other = (play(source(ten, boot_id=boot, **EACH_FRAME))[0] for boot in ("one", "two"))
    assert len({frame.patient_id for frame in unknown}) == 1
    assert unknown[0].patient_id != other[0].patient_id
    named = play(source(ten, patient_id="P7", **EACH_FRAME))[0][0]
    assert named.patient_id == "P7"
    names = iter("abcdefghij")
    told = play(source(ten, patient=lambda: next(names), **EACH_FRAME))[0]
    assert [frame.patient_id for frame in told] == list("abcdefghij")
    assert [frame.patient_known for frame in (unknown[0], named, told[0])] == [False, True, True]
    assert {frame.source for frame in told} == {"webcam"}


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_a_picture_is_kept_as_it_was_seen(tmp_path: Path, encoding: str) -> None:
    """The kept picture is a PNG or JPEG, as chosen, of the frame's size and nearly its greys."""
    shown = scene(noise=0)
    frame = play(source(video(tmp_path / "v.avi", [shown] * 2), encoding=encoding, **EACH_FRAME))[0][0]
    assert frame.media_type == f"image/{encoding}"
    assert frame.data.startswith(b"\x89PNG" if encoding == "png" else b"\xff\xd8")
    assert np.abs(decoded(frame).astype(float) - shown).mean() < 3


def test_a_picture_comes_again_until_it_is_taken(ten: Path) -> None:
    """A picture that the outbox could not keep is offered again, and the recording waits meanwhile."""
    with source(ten, **EACH_FRAME) as webcam:
        watch = Watcher(webcam)
        watch.until(lambda: webcam.step(0.0) is not None)
        keys = [webcam.step(float(now)).key for now in range(3)]
        assert len(set(keys)) == 1
        webcam.taken("another", 3.0)
        assert webcam.step(4.0).key == keys[0]
        webcam.taken(keys[0], 5.0)
        assert webcam.step(6.0).key != keys[0]
        assert level_of(webcam.step(7.0)) == pytest.approx(40, abs=4)


def test_a_recording_that_is_over_says_so(ten: Path) -> None:
    """After the last frame the source is finished, and complains with the number of frames when it is asked again."""
    webcam = source(ten, **EACH_FRAME)
    play(webcam)
    with pytest.raises(SourceError, match="ended after 10 frames; nothing is left"):
        webcam.step(0.0)


def test_a_recording_that_is_cut_off_says_so(tmp_path: Path) -> None:
    """Of a video whose second half is missing the first half is read, and what is missing is named."""
    whole = video(tmp_path / "whole.avi", (scene(seed=number) for number in range(10))).read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) // 2])
    webcam = source(cut, **EACH_FRAME)
    frames, _ = play(webcam)
    assert 2 <= len(frames) <= 6
    with pytest.raises(SourceError, match="10 frames are announced in it: it is cut off"):
        webcam.step(0.0)


def test_at_the_real_pace_time_passes_as_it_did(ten: Path) -> None:
    """At the real pace a frame is due at its own time, and those that were overtaken are dropped."""
    webcam = source(ten, **{**EACH_FRAME, "pace": "real"})
    with webcam:
        watch = Watcher(webcam, step_s=1e-6)
        watch.until(lambda: len(watch.frames) == 1)
        watch.now_s = 5.5 / FPS
        watch.until(lambda: len(watch.frames) > 1 and level_of(watch.frames[-1]) > 110)
        levels = [round(level_of(frame) / 20) for frame in watch.frames]
        assert (levels[0], levels[-1]) == (1, 6)
        assert not webcam.finished
        watch.now_s = 20 / FPS
        watch.until(lambda: webcam.finished)
        assert level_of(watch.frames[-1]) == pytest.approx(200, abs=4)


def test_pictures_of_a_sequence_come_by_their_numbers(tmp_path: Path) -> None:
    """A sequence goes by number, past gaps; a grey picture among them is as good as a coloured one."""
    for number in (2, 10, 9):
        cv2.imwrite(str(tmp_path / f"f{number}.png"), flat(10 * number))
    cv2.imwrite(str(tmp_path / "f11.png"), flat(110)[:, :, 0])
    (tmp_path / "f12.txt").write_text("no picture")
    frames, refused = play(source(tmp_path / "f%d.png", **EACH_FRAME))
    assert [round(level_of(frame) / 10) for frame in frames] == [2, 9, 10, 11]
    assert not refused


def test_a_bad_picture_of_a_sequence_is_named_and_passed_over(tmp_path: Path) -> None:
    """16-bit, four channels, damage, 40 megapixels (by their header), a speck: each is refused, and the next read."""
    pictures = {
        0: cv2.imencode(".png", flat(100))[1].tobytes(),
        1: cv2.imencode(".png", flat(100).astype(np.uint16) * 257)[1].tobytes(),
        2: cv2.imencode(".png", np.dstack([flat(100), flat(255)[:, :, :1]]))[1].tobytes(),
        3: b"\x89PNG\r\n\x1a\n damaged",
        4: png_claiming(8000, 5000),
        5: png_claiming(60_000, 60_000),
        6: cv2.imencode(".png", flat(100)[:4])[1].tobytes(),
        7: cv2.imencode(".png", flat(0, (64, 64)) * 0)[1].tobytes(),
        8: cv2.imencode(".png", flat(200))[1].tobytes(),
    }
    for number, data in pictures.items():
        (tmp_path / f"{number:03}.png").write_bytes(data)
    frames, refused = play(source(tmp_path / "%03d.png", **EACH_FRAME))
    assert [level_of(frame) for frame in frames] == [100, 200]
    reasons = [
        "16-bit frame",
        "4-channel frame",
        "damaged",
        "40 megapixels, the limit is 40",
        "",
        "at least 32x32",
        "black picture",
    ]
    assert len(refused) == len(reasons)
    assert all(word in reason for word, reason in zip(reasons, refused.values(), strict=True))


def test_a_refused_picture_is_refused_again_until_that_is_noted(tmp_path: Path) -> None:
    """A refusal that the outbox could not note comes again under its key."""
    (tmp_path / "1.png").write_bytes(b"damaged")
    cv2.imwrite(str(tmp_path / "2.png"), flat(100))
    keys: list[str] = []
    with source(tmp_path / "%d.png", **EACH_FRAME) as webcam:
        for _ in range(3):
            with pytest.raises(FrameRefusedError) as refused:
                while webcam.step(0.0) is None:
                    pass
            keys.append(refused.value.key)
        assert len(set(keys)) == 1
        webcam.taken(keys[0], 0.0)
        Watcher(webcam).until(lambda: webcam.step(0.0) is not None)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("nowhere.avi", "nowhere.avi does not exist"),
        ("noise.avi", "noise.avi cannot be opened: it is no video"),
        ("%04d.jpg", "no picture has such a name"),
        ("large.avi", "160x120 px are 0.0192 megapixels, the limit is 0.019"),
        pytest.param(
            "videotestsrc ! appsink",
            "the GStreamer pipeline cannot be opened: this OpenCV is built without GSTREAMER",
            marks=pytest.mark.skipif(
                videoio_registry.hasBackend(cv2.CAP_GSTREAMER), reason="this OpenCV has GStreamer"
            ),
        ),
        (97, "camera 97 cannot be opened: check the cable"),
        ("/dev/video97", "camera /dev/video97 cannot be opened"),
    ],
)
def test_what_cannot_be_opened_is_named(tmp_path: Path, device: str | int, words: str) -> None:
    """No such file, no video, no picture, too large a frame, no GStreamer, no such camera: the sentence says which."""
    (tmp_path / "noise.avi").write_bytes(np.random.default_rng(0).bytes(5000))
    video(tmp_path / "large.avi", [flat(100)] * 2)
    named = str(tmp_path / device) if isinstance(device, str) and device[0] not in "/v" else device
    with source(named, max_megapixels=0.019) as webcam:
        Watcher(webcam).until_says(words)


def test_a_recording_that_comes_later_is_found(tmp_path: Path) -> None:
    """A file that does not exist yet is looked for again, with pauses, and read when it is there."""
    path = tmp_path / "later.avi"
    with source(path, **EACH_FRAME) as webcam:
        watch = Watcher(webcam)
        watch.until_says("does not exist")
        video(path, [flat(100)] * 3)
        watch.until(lambda: len(watch.frames) == 3, step_s=1.0)


def test_pauses_grow_between_attempts(tmp_path: Path) -> None:
    """While a camera is away it is tried ever more rarely, and the complaint stays the same sentence."""
    with source(tmp_path / "nowhere.avi", reconnect_min_s=1.0, reconnect_max_s=64.0) as webcam:
        watch = Watcher(webcam)
        watch.until_says("does not exist")
        opened = threading.active_count()
        for _ in range(500):
            watch.step()
        assert threading.active_count() <= opened + 1
        assert len(watch.problems) == 1


def test_a_burst_at_the_end_of_a_recording_is_a_picture(tmp_path: Path) -> None:
    """When a recording ends within a burst, what there is of it makes the picture."""
    path = video(tmp_path / "short.avi", (scene(seed=number) for number in range(3)))
    frames, _ = play(source(path, **{**EACH_FRAME, "burst_frames": 5}))
    assert len(frames) == 1
