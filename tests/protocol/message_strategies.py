"""Hypothesis strategies that make every kind of message, with unicode, aware times and fields of a newer peer."""

from datetime import timedelta, timezone
from hashlib import sha256
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from protocol.chunks import to_bitmap
from protocol.codec import MAX_SEQUENCE, EventContext
from protocol.labels import LABELS, Label
from protocol.messages import (
    MAX_CHUNKS,
    ChunkRequest,
    Diagnosis,
    Disagreement,
    Frame,
    Message,
    ModelPhase,
    ModelRef,
    ModelReported,
    NetworkReading,
    Receipt,
    RetrainPhase,
    RetrainRequest,
    RetrainResult,
    RetrainStatus,
    Review,
    SliceRead,
    Status,
    UploadedFile,
    Verdict,
)

topic_ids = st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True)
message_ids = st.from_regex(r"[A-Za-z0-9-]{1,64}", fullmatch=True)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
texts = st.text(max_size=40)
counts = st.integers(0, 2**63 - 1)
versions = st.integers(1, 2**63 - 1)
probabilities = st.floats(0, 1)
durations = st.floats(0, 1e12)
labels = st.sampled_from(LABELS)
urls = st.text(max_size=40).map("https://store.example/".__add__)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
"""RFC 3339 knows offsets in whole minutes."""
times = st.datetimes(timezones=offsets)

plain_values: SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
named_values = st.dictionaries(texts, plain_values, max_size=3)
fields_of_a_newer_peer = st.dictionaries(st.from_regex(r"new_[a-z]{1,6}", fullmatch=True), plain_values, max_size=2)


def parts(part_type: type, **fields: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Build the part with these fields and, now and then, some that only a newer peer knows."""
    return st.tuples(st.fixed_dictionaries(fields), fields_of_a_newer_peer).map(
        lambda known_and_new: part_type(**known_and_new[0], **known_and_new[1])
    )


def maybe(strategy: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Build it, or None."""
    return st.none() | strategy


model_refs = parts(ModelRef, name=texts, version=versions, sha256=digests)
readings = parts(
    NetworkReading,
    label=labels,
    uncertain=st.booleans(),
    probabilities=st.fixed_dictionaries(dict.fromkeys(Label, probabilities)),
    model=model_refs,
    latency_ms=durations,
)
images = st.binary(min_size=8, max_size=200)
bitmaps = st.sets(st.integers(0, MAX_CHUNKS - 1), min_size=1, max_size=5).map(to_bitmap)
pieces = st.lists(digests, max_size=4).map(tuple)
wanted_chunks = st.dictionaries(texts, bitmaps, max_size=3)

MESSAGES: dict[type[Message], SearchStrategy[Any]] = {
    Status: parts(
        Status,
        state=st.sampled_from(["online", "lost", "stopped"]),
        boot_id=topic_ids,
        at=times,
        software=texts,
        model=maybe(model_refs),
        outbox_depth=counts,
        outbox_bytes=counts,
        outbox_fullness=probabilities,
        outbox_high_water=probabilities,
        last_sequence=counts,
        problem=texts,
        guidance=texts,
        refusals=st.dictionaries(texts, counts, max_size=5),
        refused_frames=counts,
        waiting=maybe(st.lists(st.tuples(versions, versions), max_size=64).map(tuple)),
        waiting_originals=maybe(st.lists(st.tuples(versions, versions), max_size=64).map(tuple)),
        set_aside=st.lists(st.tuples(versions, versions), max_size=64).map(tuple),
        dropped_originals=st.lists(st.tuples(versions, versions), max_size=64).map(tuple),
    ),
    SliceRead: parts(
        SliceRead,
        slice_id=topic_ids,
        boot_id=topic_ids,
        sequence=versions,
        captured_at=times,
        source=texts,
        patient_key=digests,
        preprocessing_version=versions,
        frame_sha256=digests,
        frame_omitted=texts,
        image=images,
        image_sha256=digests,
        reading=readings,
    ),
    Diagnosis: parts(Diagnosis, slice_id=topic_ids, captured_at=times, source=texts, reading=readings),
    Receipt: parts(Receipt, message_ids=st.lists(message_ids, min_size=1, max_size=5).map(tuple)),
    Verdict: parts(
        Verdict,
        slice_id=topic_ids,
        first=readings,
        second=maybe(readings),
        disagreement=maybe(
            parts(
                Disagreement,
                kind=st.sampled_from(["label", "uncertain", "confidence"]),
                reasons=st.lists(texts, max_size=3).map(tuple),
            )
        ),
        review=maybe(parts(Review, label=labels, reviewer=texts, at=times)),
    ),
    ModelReported: parts(
        ModelReported,
        phase=st.sampled_from(ModelPhase),
        at=times,
        running=maybe(model_refs),
        desired_version=counts,
        chunks_done=counts,
        chunks_total=counts,
        compared=counts,
        assignment=counts,
        keys_version=counts,
        banned=st.lists(versions, max_size=5).map(tuple),
        reason=texts,
    ),
    ChunkRequest: st.one_of(
        parts(ChunkRequest, version=versions, pieces=pieces.filter(bool), wanted=wanted_chunks, shared=st.booleans()),
        parts(ChunkRequest, version=versions, pieces=pieces, wanted=wanted_chunks.filter(bool), shared=st.booleans()),
    ),
    RetrainRequest: parts(
        RetrainRequest,
        request_id=topic_ids,
        reason=texts,
        requested_at=times,
        architecture=texts,
        base_version=versions,
        base_checkpoint_url=urls,
        base_checkpoint_sha256=digests,
        dataset_url=urls,
        dataset_sha256=digests,
        upload_urls=st.dictionaries(texts, urls, max_size=3),
        seed=counts,
    ),
    RetrainStatus: parts(
        RetrainStatus,
        request_id=topic_ids,
        trainer=texts,
        phase=st.sampled_from(RetrainPhase),
        at=times,
        epoch=counts,
        epochs=counts,
        fraction=probabilities,
        loss=maybe(st.floats(allow_nan=False, allow_infinity=False)),
        validation_balanced_accuracy=maybe(probabilities),
    ),
    RetrainResult: parts(
        RetrainResult,
        request_id=topic_ids,
        outcome=st.sampled_from(["candidate", "failed"]),
        at=times,
        trainer=texts,
        reason=texts,
        architecture=texts,
        files=st.dictionaries(texts, parts(UploadedFile, sha256=digests, size=versions), max_size=2),
        temperature=st.floats(1e-3, 1e3),
        training_data_sha256=maybe(digests),
        split_sha256=maybe(digests),
        validation=named_values,
        seconds=durations,
        verdict=texts,
        released_version=counts,
    ),
}

messages = st.sampled_from(list(MESSAGES)).flatmap(MESSAGES.__getitem__)
contexts = st.builds(
    EventContext,
    id=message_ids,
    source=st.tuples(topic_ids, topic_ids).map(lambda ids: "sliceloop/v1/" + "/".join(ids)),
    time=times,
    subject=st.just("") | topic_ids,
    sequence=st.integers(0, MAX_SEQUENCE),
)


def frame_of(data: bytes, slice_id: str, media_type: str) -> Frame:
    """Make the frame that an edge would send for these bytes."""
    return Frame(slice_id=slice_id, sha256=sha256(data).hexdigest(), media_type=media_type, data=data)


frames = st.builds(frame_of, st.binary(max_size=300), topic_ids, texts)
