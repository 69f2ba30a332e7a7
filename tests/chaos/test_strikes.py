"""Faults begin at their moments, one at a time for each target, and are mended."""

import random
import signal
from pathlib import Path

from sliceloop.chaos.mqtt_proxy import Line
from sliceloop.chaos.s3_proxy import Mood
from sliceloop.chaos.schedule import Fault, Kind
from sliceloop.chaos.strikes import MEETING_S, Strikes


class Diary:
    """Processes, lines, store and echo in one: writes down what is done to them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said, self.hits, self.connected, self.heard = folder, [], 0, 1, 1
        self.processes = self.s3 = self.echo = self
        self.lines = {"edge-1": self, "edge-2": self}

    def kill(self, name: str) -> None:
        self.said.append(f"kill {name}")

    def restart(self, name: str) -> None:
        self.said.append(f"restart {name}")

    def signal(self, name: str, number: signal.Signals) -> None:
        self.said.append(f"{number.name} {name}")

    def set(self, state: Line | Mood) -> None:
        self.said.append(f"{state}")

    def take_over(self) -> int:
        return self.connected

    def give_back(self) -> None:
        self.said.append("given back")

    def say_again(self, rng: random.Random) -> int:
        return self.heard

    def publisher(self, edge: str) -> str:
        return f"baseline-{edge}"

    def clock_file(self, name: str) -> Path:
        return self.folder / name


def test_an_edge_and_the_bare_publisher_beside_it_die_and_return_together(tmp_path: Path) -> None:
    """Both are killed at the fault's moment, not before, and started when its time is over."""
    diary = Diary(tmp_path)
    strikes = Strikes(diary, [Fault(5, Kind.KILL, "edge-1", 1.0)], seed=0)
    strikes.step(4, 0.0)
    assert diary.said == []
    strikes.step(5, 0.0)
    assert diary.said == ["kill edge-1", "kill baseline-edge-1"]
    assert strikes.down == {"edge-1", "baseline-edge-1"}
    strikes.step(9, 1.0)
    assert diary.said[2:] == ["restart edge-1", "restart baseline-edge-1"]
    assert strikes.finished
    assert len(strikes.applied) == 1


def test_a_target_is_struck_by_one_fault_at_a_time_and_others_meanwhile(tmp_path: Path) -> None:
    """The second fault of an edge waits for the first to be mended; another edge's does not."""
    diary = Diary(tmp_path)
    faults = [
        Fault(1, Kind.KILL, "edge-1", 1.0),
        Fault(1, Kind.STOP, "edge-1", 1.0),
        Fault(1, Kind.STOP, "edge-2", 1.0),
    ]
    strikes = Strikes(diary, faults, seed=0)
    strikes.step(1, 0.0)
    assert {fault.target for fault in strikes.active} == {"edge-1", "edge-2"}
    assert "SIGSTOP edge-1" not in diary.said
    strikes.step(1, 1.0)
    assert "SIGSTOP edge-1" in diary.said
    strikes.step(1, 2.0)
    assert len(strikes.applied) == 3


def test_a_fault_of_the_store_lasts_until_a_request_meets_it(tmp_path: Path) -> None:
    """Its time alone does not end it; a hit does."""
    diary = Diary(tmp_path)
    strikes = Strikes(diary, [Fault(1, Kind.S3_503, "s3", 1.0)], seed=0)
    strikes.step(1, 0.0)
    strikes.step(1, 2.0)
    assert diary.said == ["503"]
    diary.hits = 1
    strikes.step(1, 3.0)
    assert diary.said == ["503", "good"]
    assert len(strikes.applied) == 1


def test_a_fault_that_meets_nobody_is_named_as_not_applied(tmp_path: Path) -> None:
    """No request, no session and nothing to say again: each is told with its reason."""
    diary = Diary(tmp_path)
    diary.connected = diary.heard = 0
    kinds = {Kind.S3_500: "s3", Kind.MQTT_TAKEOVER: "edge-1", Kind.AGAIN: "broker"}
    strikes = Strikes(diary, [Fault(1, kind, target, 1.0) for kind, target in kinds.items()], seed=0)
    strikes.step(1, 0.0)
    strikes.step(1, 1.0 + MEETING_S)
    assert strikes.finished
    assert strikes.applied == []
    assert {fault.kind for fault, reason in strikes.not_applied if reason} == set(kinds)


def test_what_still_waits_at_the_end_is_not_applied(tmp_path: Path) -> None:
    """A moment that never came is no applied fault."""
    strikes = Strikes(Diary(tmp_path), [Fault(9, Kind.KILL, "s3", 1.0)], seed=0)
    strikes.step(1, 0.0)
    strikes.mend_all()
    assert [fault.at_slice for fault, _ in strikes.not_applied] == [9]
