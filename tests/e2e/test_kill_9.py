"""kill -9 of every process of the loop during a stream: nothing is lost, nothing doubled, and the loop still closes."""

import random
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import pytest
from real_loop import Loop

from broker.messages import Inbound
from cloud_worker.ledger import StoredRequest
from protocol.codec import decode
from protocol.messages import RetrainStatus
from protocol.topics import Kind, cloud_topic, edge_topic
from sliceloop.demo.stage import EDGES, SITE

PROCESSES = ("edge-1", "edge-2", "worker", "trainer", "broker", "s3")
ROUNDS = 3
LABELS = 24
"""In each round: about one of every streamed patient, so that each side of the split has every class."""


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_each_process_killed_once_loses_and_doubles_nothing(loop: Loop) -> None:
    """Trainer (while it trains), edge, worker, broker and S3 server die in turn; the request ends in a candidate."""
    loop.start_all()
    play_round(loop, ("trainer", "edge-1", "worker", "broker", "s3"))
    loop.wait_until_all_is_stored()
    loop.assert_nothing_is_lost_or_doubled()
    print(loop.figures())


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1])
def test_many_deaths_in_random_order_lose_and_double_nothing(loop: Loop, seed: int) -> None:
    """Round after round every process dies, in an order drawn by lot; each round's request ends in a candidate."""
    lot = random.Random(seed)
    loop.start_all()
    for _ in range(ROUNDS):
        play_round(loop, lot.sample(PROCESSES, len(PROCESSES)))
    loop.wait_until_all_is_stored()
    loop.assert_nothing_is_lost_or_doubled()
    print(loop.figures())


@pytest.mark.chaos
def test_a_training_outlasts_the_object_store(loop: Loop) -> None:
    """The S3 server is away when the candidate is to be uploaded: nothing is trained again, the request is answered."""
    loop.start_all()
    request = open_request(loop)
    loop.wait("the first epoch", lambda: loop.finished_epochs(request.request_id).exists())
    loop.kill("s3")
    loop.wait("the trainer misses it", lambda: "request waits" in loop.log("trainer"), 120)
    loop.restart("s3")
    wait_for_candidate(loop, request)
    assert loop.ledger.requests() == [loop.ledger.request(request.request_id)]
    loop.wait_until_all_is_stored()
    loop.assert_nothing_is_lost_or_doubled()


def play_round(loop: Loop, order: Sequence[str]) -> None:
    """Kill every process in this order, the trainer in the middle of a training; afterwards all of the loop works."""
    for name in order:
        if name == "trainer":
            request = open_request(loop)
            kill_in_training(loop, request)
        else:
            loop.kill_and_restart(name)
        if name == "broker":
            assert_desired_release_is_retained(loop)
    wait_for_candidate(loop, request)
    loop.release()
    newest = loop.ledger.next_version() - 1
    loop.wait("it runs on both edges", lambda: loop.active_versions() == dict.fromkeys(EDGES, newest))


def open_request(loop: Loop) -> StoredRequest:
    """Label a slice of every patient; return the request that comes of it."""
    before = len(loop.ledger.requests())
    loop.wait("enough slices to label", lambda: len(loop.unlabelled()) >= LABELS)
    loop.label(LABELS)
    loop.wait("a retrain request", lambda: len(loop.ledger.requests()) > before)
    return loop.ledger.requests()[-1]


def wait_for_candidate(loop: Loop, request: StoredRequest) -> None:
    """Wait until the request ends in a candidate and the gate has judged it."""
    loop.wait("the request is answered", lambda: loop.ledger.request(request.request_id).state != "open", 120)
    assert loop.ledger.request(request.request_id).state == "candidate"
    loop.wait("the gate has decided", lambda: not loop.ledger.pending_candidates())


def assert_desired_release_is_retained(loop: Loop) -> None:
    """The broker forgot what it retained, and was told again."""
    with loop.listening(edge_topic(SITE, EDGES[0], Kind.MODEL_DESIRED)) as ear:
        loop.wait("the desired release", lambda: bool(ear.heard()))
        latest = loop.ledger.latest_release()
        assert latest is not None
        assert ear.heard()[-1].payload == latest.envelope


def kill_in_training(loop: Loop, request: StoredRequest) -> None:
    """Kill the trainer after its first epoch; started again, it goes on after the last epoch that it finished."""
    with loop.listening(cloud_topic(Kind.RETRAIN_STATUS)) as ear:
        loop.wait("the first epoch", lambda: loop.finished_epochs(request.request_id).exists())
        killed_at = datetime.now(UTC)
        loop.kill_and_restart("trainer")
        restarted_s = time.monotonic()
        loop.wait("an epoch after the restart", lambda: bool(epochs(ear.heard(), killed_at)))
        loop.recovery_s.append(("its training", time.monotonic() - restarted_s))
        assert epochs(ear.heard(), killed_at)[0] > 1, "it began from the beginning"


def epochs(heard: Iterable[Inbound], since: datetime) -> list[int]:
    """Return the epochs that the trainer has told of since then."""
    told = [decode(Kind.RETRAIN_STATUS, each.payload, each.user_properties).message for each in heard]
    return [each.epoch for each in told if isinstance(each, RetrainStatus) and each.epoch and each.at > since]
