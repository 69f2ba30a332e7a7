"""What is the box's, the clock's or the line's fault bans no release and stops no edge; what is not assigned stops."""

import errno
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from edge_parts import (
    ASSIGNER,
    CHUNK_TIMEOUT_S,
    NOW,
    SIGNER,
    TalkingUpdater,
    assigned,
    filled_slot,
    release,
    wait_until,
)

from edge_agent.by_url import Run, UrlFetch
from edge_agent.delivery import Delivery
from edge_agent.trial import TrialDiedError, TrialStoppedError, TrialTimeoutError
from protocol.chunks import describe
from protocol.manifest import MODEL_FILE, Manifest
from protocol.messages import ModelPhase
from protocol.rotation import KeyRotation, bundle, sign_rotation
from protocol.signing import generate_signer, public_key_json


@pytest.fixture
def edge(tmp_path: Path) -> TalkingUpdater:
    """An updater whose slot runs release 1."""
    return TalkingUpdater(filled_slot(tmp_path / "models"))


# Clock and news.


def test_a_fresh_assignment_ends_a_freeze(edge: TalkingUpdater) -> None:
    """The release that was refused while news stayed away is taken as soon as a fresh assignment names it."""
    second, late = release(2), NOW + timedelta(days=4)
    edge.assign(second)
    edge.updater.offer(second.envelope, late)
    assert "FrozenError" in edge.last.reason
    edge.updater.hear_assignment(assigned(second, 2, now=late), late)
    edge.give_wanted(second)
    assert edge.slot.running_version == 2


def test_a_clock_that_was_wrong_is_set_right(edge: TalkingUpdater) -> None:
    """A release that seemed to have expired is taken at the next word of the cloud, once the clock is right."""
    second = release(2)
    edge.offer(second, NOW + timedelta(days=400))
    assert "ExpiredManifestError" in edge.last.reason
    reports = len(edge.reports)
    edge.updater.offer(second.envelope, NOW + timedelta(days=400))
    assert len(edge.reports) == reports
    edge.bring(second)
    assert edge.slot.running_version == 2


# The box.


def failing(errors: list[Exception]) -> Callable[[Path, Manifest], None]:
    """Return a trial that raises these one after another, and then finds nothing."""

    def trial(_folder: Path, _manifest: Manifest) -> None:
        if errors:
            raise errors.pop(0)

    return trial


def test_a_trial_that_the_agents_end_stopped_bans_nothing(tmp_path: Path) -> None:
    """It found nothing out: after the restart the release is tried again."""
    slot = filled_slot(tmp_path / "models")
    edge = TalkingUpdater(slot, trial=failing([TrialStoppedError("stopped")]))
    edge.bring(release(2))
    assert edge.slot.banned == ()
    after = TalkingUpdater(slot)
    after.bring(release(2))
    assert after.slot.running_version == 2


@pytest.mark.parametrize(
    "error", [TrialTimeoutError("no answer"), TrialDiedError("killed"), MemoryError(), OSError(errno.EAGAIN, "fork")]
)
def test_a_box_that_was_busy_or_full_for_a_while_bans_nothing(tmp_path: Path, error: Exception) -> None:
    """A trial without an answer says little of the network: it is tried again a minute later, without the cloud."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models"), trial=failing([error]))
    edge.bring(release(2))
    assert edge.slot.banned == ()
    assert edge.slot.running_version == 1
    assert edge.last.phase is not ModelPhase.REJECTED
    edge.step(61.0)
    edge.give_wanted(release(2))
    assert edge.slot.running_version == 2


def test_a_network_that_never_answers_is_banned_in_the_end(tmp_path: Path) -> None:
    """After three trials without an answer the edge believes that it is the network."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models"), trial=failing([TrialTimeoutError("no answer")] * 3))
    edge.bring(release(2))
    edge.step(61.0)
    assert edge.slot.banned == ()
    edge.step(122.0)
    assert edge.slot.banned == (2,)
    assert edge.last.phase is ModelPhase.REJECTED
    assert "TrialTimeoutError" in edge.last.reason
