"""The commands of the engineer who releases and watches the fleet, as they are typed."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from command_here import Ended, run_here
from worker_parts import EDGE, SITE, constant_network, network, network_file, reports

from broker.trusted_keys import load_key_set
from cloud_worker.assigner import Assigner
from cloud_worker.fleet_settings import RingSettings, RolloutSettings
from cloud_worker.ledger import Ledger
from cloud_worker.object_store import ObjectStore, S3Settings
from cloud_worker.settings import WorkerSettings
from cloud_worker.signing_keys import load_signer
from protocol.labels import Label
from protocol.messages import ModelPhase, ModelRef, ModelReported
from sliceloop.keys import new_keys

CONFIG = """
[worker]
ledger_url = "{ledger}"
trusted_keys_dir = "keys/trusted"
trusted_threshold = {threshold}
rollout = {{ rings = [{{ name = "all", share = 1, min_s = 0 }}] }}
[release]
signing_key_files = ["keys/signing.pem"]
[s3]
endpoint_url = "{endpoint}"
bucket = "{bucket}"
prefix = "{prefix}"
"""
RINGS = RolloutSettings(rings=(RingSettings(name="all", share=1, min_s=0),))


@dataclass
class Office:
    """An engineer's folder with keys and configuration, and the ledger that a worker looks into."""

    folder: Path
    store: ObjectStore
    ledger: Ledger

    def run(self, *words: object) -> Ended:
        """Run `sliceloop`: forty processes would take a minute."""
        return run_here(*words, cwd=self.folder, env={"SLICELOOP_CONFIG": "sliceloop.toml"})

    def said(self, *words: object) -> str:
        """Run a command that goes well; return what it says."""
        ended = self.run(*words)
        assert ended.code == 0, ended.err
        return ended.out

    def status(self) -> dict[str, Any]:
        """Return what `sliceloop status --json` says."""
        found: dict[str, Any] = json.loads(self.said("status", "--json"))
        return found

    def bundle(self, name: str, model: bytes) -> Path:
        """Write a trained network."""
        return network_file(self.folder / name, model)

    def worker(self, keys: str = "keys", trusted: str = "keys", threshold: int = 1) -> Assigner:
        """Return what a worker with these keys assigns by."""
        settings = WorkerSettings(rollout=RINGS)
        signer = load_signer(self.folder / keys / "assign.pem")
        chain = load_key_set(self.folder / trusted / "trusted", threshold)
        return Assigner(settings, self.store, self.ledger, signer, chain)

    def runs(self, version: int) -> None:
        """Let the edge report that it runs a version for good."""
        ref = ModelRef(name="sliceloop-edge", version=version, sha256=self.ledger.release(version).sha256)
        now = datetime.now(UTC)
        said = ModelReported(phase=ModelPhase.ACTIVE, at=now, running=ref, desired_version=version)
        self.ledger.record_reported(SITE, EDGE, said.model_dump(mode="json"), now)


@pytest.fixture
def office(tmp_path: Path, store: ObjectStore, s3_settings: S3Settings, ledger: Ledger) -> Callable[..., Office]:
    """Furnish an office."""

    def furnish(threshold: int = 1) -> Office:
        made = Office(tmp_path, store, ledger)
        config = CONFIG.format(
            ledger=ledger.url,
            threshold=threshold,
            endpoint=s3_settings.endpoint_url,
            bucket=s3_settings.bucket,
            prefix=s3_settings.prefix,
        )
        (tmp_path / "sliceloop.toml").write_text(config)
        new_keys(tmp_path / "keys")
        return made

    return furnish


def test_a_release_from_the_first_signature_to_the_withdrawal(office: Callable[..., Office]) -> None:
    """Release, look, pin, pause, resume, withdraw: each says what it did, and `status` shows it."""
    at = office()
    said = at.said("release", at.bundle("one", network()), "--why", "the first", "--page", "card.md")
    assert "release 1 of sliceloop-edge: sha256" in said
    assert "# sliceloop-edge, version 1" in (at.folder / "card.md").read_text()
    assert at.said("card", 1) == (at.folder / "card.md").read_text() + "\n"
    assert "waits for further signatures (`sliceloop sign`), or for a worker" in at.said("status")
    assert "has not begun: does a worker" in at.run("pause", 1).err
    reports(at.ledger)
    worker = at.worker()
    worker.step(datetime.now(UTC))
    (ring,) = at.status()["rollout"]["rings"]
    assert (ring["name"], ring["edges"], ring["assigned"], ring["steps"]["waiting"]) == ("all", 1, 1, 1)
    at.runs(1)
    worker.step(datetime.now(UTC))
    assert at.status()["releases"][0]["rollout"]["state"] == "complete"
    at.said("release", at.bundle("two", constant_network(Label.NORMAL)), "--why", "worse")
    worker.step(datetime.now(UTC))
    assert "is paused" in at.said("pause", 2)
    assert "paused: `sliceloop resume 2` goes on" in at.said("status")
    assert "is paused, not running" in at.run("pause", 2).err
    assert "goes on" in at.said("resume", 2)
    at.runs(2)
    assert f"{SITE}/{EDGE} is pinned to version 1; it runs 2 and refuses to go backwards" in at.said(
        "pin", f"{SITE}/{EDGE}", 1
    )
    assert at.status()["edges"][0]["ring"] == "pinned"
    assert "follows the rollouts again" in at.said("pin", f"{SITE}/{EDGE}", "--off")
    assert "edges that run 2 go back to version 1" in at.said("withdraw", 2, "--why", "says Normal to everything")
    worker.step(datetime.now(UTC))
    found = at.status()
    assert (found["edges"][0]["assigned"], found["edges"][0]["on_withdrawn"]) == (1, True)
    assert found["releases"][1]["rollout"]["reason"] == "says Normal to everything"
    assert "2 (withdrawn)" in at.said("status")
    assert "version 2 is withdrawn: no edge is told" in at.run("pin", f"{SITE}/{EDGE}", 2).err
    lineage = json.loads(at.said("lineage", "--release", 2, "--json"))
    assert lineage["release"]["state"] == "withdrawn"
    assert lineage["release"]["lesson"] is None


def test_a_second_person_signs(office: Callable[..., Office]) -> None:
    """With a threshold of two a release waits until another key has signed it."""
    at = office(2)
    new_keys(at.folder / "second")
    for key in (at.folder / "second" / "trusted").glob("*.pub.json"):
        key.rename(at.folder / "keys" / "trusted" / key.name)
    said = at.said("release", at.bundle("one", network()), "--why", "the first")
    assert "signed by 1 of 2 trusted keys" in said
    assert "`sliceloop sign 1`" in said
    reports(at.ledger)
    worker = at.worker(threshold=2)
    worker.step(datetime.now(UTC))
    assert at.ledger.assignments() == []
    assert "signed by 1 of 2 trusted keys" in at.said("sign", 1), "the same key again is no further one"
    assert at.said("sign", 1, "--key", "second/signing.pem") == "version 1: 1 manifest signed by 1 key\n"
    worker.step(datetime.now(UTC))
    assert [each.version for each in at.ledger.assignments()] == [1]
    assert len(at.status()["releases"][0]["signed_by"]) == 2
    new_keys(at.folder / "stranger")
    assert "not among the trusted keys" in at.said("sign", 1, "--key", "stranger/signing.pem")
    at.said("release", at.bundle("two", constant_network(Label.NORMAL)), "--why", "worse")
    back = at.said("withdraw", 2, "--why", "says Normal to everything")
    assert "go back to version 1; no edge is told yet, it is signed by 1 of 2" in back
    assert "`sliceloop sign 1`" in back


def test_what_is_printed_is_the_answer_alone(office: Callable[..., Office]) -> None:
    """A card goes into a file and a status into a program, also after keys were exchanged: no log stands before it."""
    at = office()
    assert at.said("release", at.bundle("one", network()), "--why", "the first").startswith("release 1 of ")
    new_keys(at.folder / "next")
    at.said("keys", "rotate", "next")
    assert at.said("card", 1).startswith("# sliceloop-edge, version 1")


def test_a_key_that_nobody_trusts_signs_nothing(office: Callable[..., Office]) -> None:
    """Neither a release nor a way back is entered by a key that was exchanged: it would be said, and reach no edge."""
    at = office()
    bundle = at.bundle("one", network())
    at.said("release", bundle, "--why", "the first")
    new_keys(at.folder / "next")
    at.said("keys", "rotate", "next")
    for words in (("release", bundle, "--why", "again"), ("withdraw", 1, "--why", "bad")):
        refused = at.run(*words)
        assert refused.code == 2
        assert "is not among the trusted release keys" in refused.err
    assert ([each.version for each in at.ledger.releases()], at.ledger.rollouts()) == ([1], [])
    assert "release 2" in at.said("release", bundle, "--why", "again", "--key", "next/signing.pem")


def test_a_withdrawal_without_a_way_back_says_that_edges_read_on(office: Callable[..., Office]) -> None:
    """The first release of all is assigned to nobody new, and nothing takes it off the edges that run it."""
    at = office()
    at.said("release", at.bundle("one", network()), "--why", "the first")
    assert "edges that run it read on with it until the next release" in at.said("withdraw", 1, "--why", "bad")


def test_a_second_withdrawal_does_not_hide_the_first(office: Callable[..., Office]) -> None:
    """Why it was withdrawn stays; only another way back is a reason to say it again."""
    at = office()
    for name in ("one", "two", "three"):
        at.said("release", at.bundle(name, network()), "--why", name)
    at.said("withdraw", 3, "--why", "sensitivity too low")
    refused = at.run("withdraw", 3, "--why", "again")
    assert refused.code == 2
    assert "version 3 is withdrawn already (sensitivity too low); --to names another way back" in refused.err
    assert "go back to version 1" in at.said("withdraw", 3, "--why", "not 2 either", "--to", 1)
    assert at.ledger.rollouts()[-1].reason == "sensitivity too low; not 2 either"


def test_a_release_is_withdrawn_while_the_object_store_is_away(office: Callable[..., Office]) -> None:
    """What harms must stop now: the way back, a further signature of it and the page of a release need no object."""
    at = office()
    at.said("release", at.bundle("one", network()), "--why", "the first")
    at.said("release", at.bundle("two", constant_network(Label.NORMAL)), "--why", "worse")
    config = at.folder / "sliceloop.toml"
    config.write_text(re.sub('endpoint_url = ".*"', 'endpoint_url = "http://127.0.0.1:9"', config.read_text()))
    assert "go back to version 1" in at.said("withdraw", 2, "--why", "says Normal to everything")
    assert "2 manifests signed" in at.said("sign", 1)
    assert "State: withdrawn" in at.said("card", 2)


def test_a_pin_that_cannot_hold_is_said_to(office: Callable[..., Office]) -> None:
    """An edge that took the version back refuses it, pinned or not; an expired one reaches nobody."""
    at, name = office(), f"{SITE}/{EDGE}"
    at.said("release", at.bundle("one", network()), "--why", "the first")
    assert at.said("pin", name, 1) == f"{name} is pinned to version 1; it was never heard of yet\n"
    reports(at.ledger, banned=(1,))
    assert "it took this version back before, and refuses it" in at.said("pin", name, 1)
    config = at.folder / "sliceloop.toml"
    config.write_text(config.read_text().replace("[release]", "[release]\nvalid_days = 1e-6"))
    at.said("release", at.bundle("two", network()), "--why", "brief")
    assert "it has expired" in at.said("pin", name, 2)


def test_the_keys_are_exchanged(office: Callable[..., Office]) -> None:
    """Signed by old and new key, the rotation is followed, and what was released before is trusted by the new key."""
    at = office()
    at.said("release", at.bundle("one", network()), "--why", "the first")
    reports(at.ledger)
    new_keys(at.folder / "next")
    refused = at.run("keys", "rotate", "next", "--key", "next/signing.pem")
    assert refused.code == 2
    assert "signed by no trusted key" in refused.err
    assert at.ledger.key_rotations() == []
    assert "keys of version 2 are in the ledger" in at.said("keys", "rotate", "next")
    at.worker().step(datetime.now(UTC))
    assert at.ledger.assignments() == [], "the old worker's key is not trusted any more"
    at.worker("next").step(datetime.now(UTC))
    assert [each.version for each in at.ledger.assignments()] == [1]


def test_signatures_of_a_rotation_are_gathered(office: Callable[..., Office]) -> None:
    """Whoever has only one of the keys adds to a file; when enough have signed it is entered."""
    at = office()
    new_keys(at.folder / "next")
    only_new = "keys", "rotate", "next", "--envelope", "rotation.json", "--key", "next/signing.pem"
    assert "the next one signs by the same command" in at.said(*only_new)
    assert at.ledger.key_rotations() == []
    assert "keys of version 2 are in the ledger" in at.said("keys", "rotate", "next", "--envelope", "rotation.json")


def test_a_release_that_the_new_keys_have_not_all_signed_is_named(office: Callable[..., Office]) -> None:
    """Whoever gathered signatures in a file signs the releases later: until then edges are told nothing of them."""
    at = office()
    at.said("release", at.bundle("one", network()), "--why", "the first")
    for name in ("next", "second"):
        new_keys(at.folder / name)
    for key in (at.folder / "second" / "trusted").glob("*.pub.json"):
        key.rename(at.folder / "next" / "trusted" / key.name)
    rotate = "keys", "rotate", "next", "--threshold", 2, "--envelope", "rotation.json"
    at.said(*rotate)
    said = at.said(*rotate, "--new-key", "second/signing.pem")
    assert "too few of the new keys have signed version 1, which no edge is told until then" in said
    reports(at.ledger)
    worker = at.worker("next")
    worker.step(datetime.now(UTC))
    assert at.ledger.assignments() == []
    at.said("sign", 1, "--key", "next/signing.pem")
    worker.step(datetime.now(UTC))
    assert [each.version for each in at.ledger.assignments()] == [1]


def test_an_exchange_of_keys_needs_no_fewer_signatures_than_before(office: Callable[..., Office]) -> None:
    """Two have to sign, and go on having to where nobody says otherwise: one new key is not enough."""
    at = office(2)
    new_keys(at.folder / "second")
    for key in (at.folder / "second" / "trusted").glob("*.pub.json"):
        key.rename(at.folder / "keys" / "trusted" / key.name)
    new_keys(at.folder / "next")
    both = "--key", "keys/signing.pem", "--key", "second/signing.pem"
    assert "holds 1 release keys of 2" in at.run("keys", "rotate", "next", *both).err
    assert "keys of version 2" in at.said("keys", "rotate", "next", *both, "--threshold", 1)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("release",), "give the folder of a bundle, or --candidates"),
        (("release", "bundle"), "say --why"),
        (("release", "bundle", "--why", "x", "--watch"), "--watch goes with --candidates"),
        (("release", "bundle", "--why", "x", "--page", "nowhere/card.md"), "is no file in a folder that is there"),
        (("withdraw", 7, "--why", "x"), "no release 7 in the ledger: `sliceloop status` lists them"),
        (("sign", 7), "no release 7 in the ledger"),
        (("pin", "nobody", 1), "say SITE/EDGE"),
        (("pin", "Site/nobody", 1), "must match"),
        (("pin", "a/b"), "give a version, or --off"),
        (("pin", "a/b", "--off"), "a/b is not pinned"),
        (("lineage",), "give a slice's id, or --release VERSION"),
        (("lineage", "slice-1"), "no slice 'slice-1' in the ledger"),
        (
            ("keys", "rotate", "nowhere"),
            "nowhere/signing.pem cannot be read (No such file or directory)",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    office: Callable[..., Office], words: tuple[object, ...], fault: str
) -> None:
    """Each says what is wrong and what to do; nothing changes."""
    at = office()
    ended = at.run(*words)
    assert ended.code == 2, ended.out
    assert fault in " ".join(ended.err.replace("│", " ").split())
    assert "Traceback" not in ended.err


def test_without_a_candidate_there_is_nothing_to_sign(office: Callable[..., Office]) -> None:
    """`--candidates` says so and ends; a ledger that is not there is not made to find none in it."""
    at = office()
    assert "no candidate waits for a signature" in at.said("release", "--candidates")
    config = at.folder / "sliceloop.toml"
    config.write_text(config.read_text().replace("ledger.sqlite", "mistyped.sqlite"))
    assert "mistyped.sqlite does not exist" in at.run("release", "--candidates").err
