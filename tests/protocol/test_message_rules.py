"""Messages cannot be changed once made, speak of labels by name, and hold only numbers that mean something."""

import json
from typing import Any

import pytest
from hypothesis import given
from message_strategies import digests, messages, readings
from pydantic import ValidationError

from protocol.chunks import to_bitmap
from protocol.labels import LABELS, Label
from protocol.messages import (
    MAX_CHUNKS,
    MAX_INDEX_PIECES,
    ChunkRequest,
    Diagnosis,
    Message,
    ModelReported,
    NetworkReading,
    Part,
    Receipt,
    RetrainRequest,
    SliceRead,
    Status,
)

READING = {
    "label": "COVID-19",
    "uncertain": False,
    "probabilities": {"Normal": 0.1, "Pneumonia": 0.2, "COVID-19": 0.7},
    "model": {"name": "squeezenet", "version": 1, "sha256": "0" * 64},
    "latency_ms": 12.5,
}


@given(messages)
def test_a_message_cannot_be_changed(message: Message) -> None:
    """Every field of every message is frozen, and so are the parts inside."""
    for part in [message, *(value for _, value in message if isinstance(value, Part))]:
        for field in type(part).model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(part, field, getattr(part, field))


def test_the_labels_are_the_three_names_in_the_order_of_our_networks() -> None:
    """Normal, Pneumonia, COVID-19: the names that stand in every message."""
    assert [str(label) for label in LABELS] == ["Normal", "Pneumonia", "COVID-19"]


@pytest.mark.parametrize("label", [0, 1, 2, "0", "1", 1.0, True, None, "normal", "COVID", "NORMAL", "Normal ", b"\x00"])
def test_a_label_is_a_name_and_never_an_index(label: object) -> None:
    """An index, or a name in another spelling, is refused as a label."""
    with pytest.raises(ValidationError):
        NetworkReading.model_validate({**READING, "label": label})


@pytest.mark.parametrize("label", [0, 1, "0", "normal"])
def test_probabilities_are_by_name_and_never_by_index(label: object) -> None:
    """A probability under an index is refused, and so is a bare list of probabilities."""
    with pytest.raises(ValidationError):
        NetworkReading.model_validate({**READING, "probabilities": {label: 1.0}})
    with pytest.raises(ValidationError):
        NetworkReading.model_validate({**READING, "probabilities": [0.1, 0.2, 0.7]})


@given(readings)
def test_the_names_of_labels_are_what_travels(reading: NetworkReading) -> None:
    """In JSON a reading holds the three names, and no number in their place."""
    said = json.loads(reading.model_dump_json())
    assert said["label"] in {"Normal", "Pneumonia", "COVID-19"}
    assert set(said["probabilities"]) == {"Normal", "Pneumonia", "COVID-19"}


def test_confidence_is_the_probability_of_the_label() -> None:
    """A reading's confidence is that of the label which it names."""
    assert NetworkReading.model_validate(READING).confidence == 0.7
    assert NetworkReading.model_validate({**READING, "label": Label.NORMAL}).confidence == 0.1


@pytest.mark.parametrize("probabilities", [{}, {"Normal": 1.0}])
def test_a_reading_has_a_probability_for_its_label(probabilities: dict[str, float]) -> None:
    """A reading whose label has no probability is refused: its confidence would be a guess."""
    with pytest.raises(ValidationError, match="no probability"):
        NetworkReading.model_validate({**READING, "probabilities": probabilities})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), -0.1, 1.1, "much", None])
def test_a_probability_is_a_number_from_0_to_1(number: object) -> None:
    """NaN, infinities and numbers outside 0..1 are refused."""
    with pytest.raises(ValidationError):
        NetworkReading.model_validate({**READING, "probabilities": {**READING["probabilities"], "Normal": number}})


@pytest.mark.parametrize(
    "changes",
    [
        {"latency_ms": float("nan")},
        {"latency_ms": -1.0},
        {"model": {"name": "n", "version": 0, "sha256": "0" * 64}},
        {"model": {"name": "n", "version": 1, "sha256": "0" * 63}},
        {"model": {"name": "n", "version": 1, "sha256": "A" * 64}},
        {"model": {"name": "n" * 201, "version": 1, "sha256": "0" * 64}},
    ],
)
def test_a_reading_with_a_value_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    """Negative or endless latencies, version 0, short or upper-case hashes and endless names are refused."""
    with pytest.raises(ValidationError):
        NetworkReading.model_validate({**READING, **changes})


@pytest.mark.parametrize("at", ["2026-03-01T12:00:00", "yesterday", "", float("nan"), 1e300])
def test_a_time_without_a_zone_is_refused(at: object) -> None:
    """A naive time, or none at all, is refused: times are aware."""
    with pytest.raises(ValidationError):
        Status.model_validate({"state": "online", "boot_id": "b", "at": at, "software": "x"})
    with pytest.raises(ValidationError):
        Diagnosis.model_validate({"slice_id": "s", "captured_at": at, "source": "x", "reading": READING})


@given(digests)
def test_a_receipt_names_1_to_500_messages(digest: str) -> None:
    """An empty receipt and one without bounds are refused."""
    assert len(Receipt(message_ids=(digest,) * 500).message_ids) == 500
    for count in (0, 501):
        with pytest.raises(ValidationError):
            Receipt(message_ids=(digest,) * count)


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "ftp://x/", "//x/", "https:/x", " https://x/", "x" * 5000])
def test_a_retrain_request_leads_only_to_http(url: str) -> None:
    """A trainer is never sent to a file or another scheme."""
    fields = {"request_id": "r", "reason": "", "requested_at": "2026-03-01T12:00:00Z", "architecture": "resnet18"}
    hashes = {"base_checkpoint_sha256": "0" * 64, "dataset_sha256": "0" * 64}
    links = {"base_checkpoint_url": "https://x/a", "dataset_url": "https://x/b", "upload_urls": {"model": "http://x/c"}}
    whole = {**fields, **hashes, **links, "base_version": 1, "seed": 0}
    assert RetrainRequest.model_validate(whole).dataset_url == "https://x/b"
    for changes in ({"base_checkpoint_url": url}, {"dataset_url": url}, {"upload_urls": {"model": url}}):
        with pytest.raises(ValidationError):
            RetrainRequest.model_validate({**whole, **changes})


def test_a_slice_carries_no_more_than_a_slice() -> None:
    """An image of 7 bytes or of more than 96 KiB is no slice."""
    fields = SliceRead.model_json_schema()["properties"]["image"]
    assert (fields["minLength"], fields["maxLength"]) == (8, 96 * 1024)


@pytest.mark.parametrize(
    "changes",
    [
        {"pieces": [], "wanted": {}},
        {"pieces": [], "wanted": {"model.onnx": ""}},
        {"pieces": ["f" * 64] * (MAX_INDEX_PIECES + 1)},
        {"pieces": ["F" * 64]},
        {"pieces": ["../" + "f" * 61]},
        {"wanted": {"model.onnx": to_bitmap([MAX_CHUNKS + 8])}},
        {"wanted": {str(number): "AQ==" for number in range(9)}},
        {"wanted": {"a" * 201: "AQ=="}},
        {"wanted": ["model.onnx"]},
        {"version": 0},
        {"version": None},
    ],
)
def test_a_chunk_request_asks_for_something_and_not_for_everything(changes: dict[str, Any]) -> None:
    """A request for nothing, for more than a file can have, or by a malformed hash is refused."""
    good = {"version": 1, "pieces": ["f" * 64], "wanted": {"model.onnx": to_bitmap([0, MAX_CHUNKS - 1])}}
    assert ChunkRequest.model_validate(good).wanted.keys() == {"model.onnx"}
    with pytest.raises(ValidationError):
        ChunkRequest.model_validate({**good, **changes})


def test_a_report_names_a_hundred_banned_versions_at_most() -> None:
    """What an edge reports of its bans has an end."""
    good = {"phase": "active", "at": "2026-03-01T12:00:00Z", "banned": list(range(1, 101))}
    assert len(ModelReported.model_validate(good).banned) == 100
    with pytest.raises(ValidationError):
        ModelReported.model_validate({**good, "banned": list(range(1, 102))})
