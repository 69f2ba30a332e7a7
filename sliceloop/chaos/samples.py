"""Valid messages of every topic that somebody subscribes to: captured from the loop, or made where none come."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from protocol.codec import EventContext, encode
from protocol.messages import KIND_OF, Message, RetrainPhase, RetrainRequest, RetrainResult, RetrainStatus
from protocol.topics import ROOT, cloud_topic
from sliceloop.chaos.bare_client import BareClient
from sliceloop.chaos.packets import Published, user_properties

EVERYTHING = f"{ROOT}/#"
KEPT_A_TOPIC = 6
LISTEN_S = 0.2
NOWHERE = "http://127.0.0.1:1/nothing"


def capture(port: int, go_on: Callable[[], bool]) -> list[Published]:
    """Listen to everything as long as it is told to; return a few messages of each topic, and those of the trainers."""
    kept: dict[str, list[Published]] = {}
    with BareClient(port, "capture", [EVERYTHING]) as client:
        while go_on():
            for message in client.heard(LISTEN_S):
                of_topic = kept.setdefault(message.topic, [])
                if len(of_topic) < KEPT_A_TOPIC and message.payload:
                    of_topic.append(message)
    return [*(message for of_topic in kept.values() for message in of_topic), *_of_trainers()]


def _of_trainers() -> list[Published]:
    now, request_id, sha256 = datetime.now(UTC), uuid.uuid4().hex, "0" * 64
    messages: list[Message] = [
        RetrainRequest(
            request_id=request_id,
            reason="fuzz",
            requested_at=now,
            architecture="squeezenet1_1_bn",
            base_version=1,
            base_checkpoint_url=NOWHERE,
            base_checkpoint_sha256=sha256,
            dataset_url=NOWHERE,
            dataset_sha256=sha256,
            upload_urls={"model.onnx": NOWHERE},
            seed=0,
        ),
        RetrainStatus(request_id=request_id, trainer="fuzz", phase=RetrainPhase.TRAINING, at=now),
        RetrainResult(request_id=request_id, outcome="failed", at=now, trainer="fuzz", reason="fuzz"),
    ]
    return [_published(message, now) for message in messages]


def _published(message: Message, now: datetime) -> Published:
    encoded = encode(message, EventContext(id=uuid.uuid4().hex, source="/fuzz", time=now))
    return Published(cloud_topic(KIND_OF[type(message)]), encoded.payload, user_properties(encoded.user_properties))
