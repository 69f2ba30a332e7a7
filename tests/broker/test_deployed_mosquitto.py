"""The deployment's mosquitto.conf as it is, with its certificates and access rules; only paths and the port differ."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import DEADLINE_S, MosquittoBroker, connected, mosquitto_path, quick_settings, wait_until

from broker.certificates import create_authority, issue_client, issue_server
from broker.errors import OversizeError
from broker.limits import INBOUND_HEADROOM_BYTES
from broker.session import Outbound, Session
from broker.settings import MAX_PAYLOAD_BYTES, BrokerSettings

HERE = Path(__file__).parents[2] / "broker"
CLIENTS = ("hospital-a/ct-1", "hospital-a/ct-2", "worker", "trainer", "dashboard", "engineer")
NOTHING_MORE_S = 0.3
OURS = "sliceloop/v1/hospital-a/ct-1"
THEIRS = "sliceloop/v1/hospital-a/ct-2"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    create_authority(folder)
    issue_server(folder, ["127.0.0.1", "broker"])
    for common_name in CLIENTS:
        issue_client(folder, common_name)
    return folder


@pytest.fixture(scope="module")
def deployed(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MosquittoBroker]:
    mosquitto_path()
    folder = tmp_path_factory.mktemp("mosquitto")
    shutil.copy(HERE / "sliceloop.acl", folder)
    (folder / "sliceloop.acl").chmod(0o600)
    broker = MosquittoBroker(folder, config=adapted(folder, certificates))
    yield broker
    broker.stop()


def adapted(folder: Path, certificates: Path) -> str:
    text = (HERE / "mosquitto.conf").read_text()
    replaced = {
        "listener 8883": "listener {port} 127.0.0.1",
        "/mosquitto/config/certs": str(certificates),
        "/mosquitto/config": str(folder),
        "/mosquitto/data/": f"{folder}/",
    }
    for theirs, ours in replaced.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    return text + ("user root\n" if os.geteuid() == 0 else "")


def settings_of(deployed: MosquittoBroker, certificates: Path, common_name: str | None) -> BrokerSettings:
    files: dict[str, object] = {}
    if common_name is not None:
        stem = certificates / f"client-{common_name.replace('/', '_')}"
        files = {"tls_cert_file": stem.with_suffix(".crt"), "tls_key_file": stem.with_suffix(".key")}
    return quick_settings(deployed.port, tls_ca_file=certificates / "ca.crt", **files)


@pytest.fixture
def edge(deployed: MosquittoBroker, certificates: Path) -> BrokerSettings:
    return settings_of(deployed, certificates, "hospital-a/ct-1")


@pytest.fixture
def worker(deployed: MosquittoBroker, certificates: Path) -> BrokerSettings:
    return settings_of(deployed, certificates, "worker")


def test_an_edge_speaks_for_itself_alone(edge: BrokerSettings, worker: BrokerSettings) -> None:
    """An edge publishes below its own root; the broker refuses it the root of another, by a reason in the PUBACK."""
    with (
        Session(worker, "worker-1", subscriptions=["$share/workers/sliceloop/v1/+/+/slice"], clean_start=True) as cloud,
        Session(edge, "ct-1") as agent,
    ):
        connected(cloud), connected(agent)
        forged = agent.publish(Outbound(f"{THEIRS}/slice", b"forged"))
        assert not forged.wait(DEADLINE_S)
        assert "ot authorized" in str(forged.reason)
        assert agent.publish(Outbound(f"{OURS}/slice", b"own")).wait(DEADLINE_S)
        received = cloud.receive(DEADLINE_S)
        assert received is not None
        assert (received.topic, received.payload) == (f"{OURS}/slice", b"own")
        assert cloud.receive(NOTHING_MORE_S) is None


@pytest.mark.parametrize("kind", ["receipt", "verdict", "model/desired", "model/assigned"])
def test_an_edge_hears_what_is_for_itself_alone(edge: BrokerSettings, worker: BrokerSettings, kind: str) -> None:
    """Subscribing to everything gives an edge its own messages and no others."""
    with (
        Session(edge, "ct-1-listener", subscriptions=["sliceloop/v1/#"], clean_start=True) as agent,
        Session(worker, "worker-1") as cloud,
    ):
        connected(agent), connected(cloud)
        for root in (THEIRS, OURS):
            assert cloud.publish(Outbound(f"{root}/{kind}", b"x")).wait(DEADLINE_S)
        received = agent.receive(DEADLINE_S)
        assert received is not None and received.topic == f"{OURS}/{kind}"
        assert agent.receive(NOTHING_MORE_S) is None


def refused(session: Session, topic: str) -> bool:
    delivery = session.publish(Outbound(topic, b"x"))
    return not delivery.wait(DEADLINE_S) and "ot authorized" in str(delivery.reason)


def test_nobody_says_what_is_not_his_to_say(deployed: MosquittoBroker, certificates: Path) -> None:
    """No edge releases a model or writes a receipt, no dashboard writes at all, no trainer releases."""
    forbidden = {
        "hospital-a/ct-1": [
            f"{OURS}/receipt",
            f"{OURS}/model/desired",
            f"{OURS}/model/assigned",
            "sliceloop/v1/fleet/model/desired",
            "sliceloop/v1/fleet/model/keys",
            f"sliceloop/v1/fleet/model/chunk/{'0' * 64}",
            "other",
        ],
        "dashboard": [f"{OURS}/verdict", "sliceloop/v1/cloud/retrain/request"],
        "trainer": ["sliceloop/v1/fleet/model/desired", "sliceloop/v1/cloud/retrain/request"],
        "engineer": [f"{OURS}/status", f"{OURS}/receipt", "sliceloop/v1/fleet/model/desired"],
        "worker": [f"{OURS}/slice", "sliceloop/v1/cloud/retrain/status"],
    }
    for common_name, topics in forbidden.items():
        with Session(settings_of(deployed, certificates, common_name), "speaker", clean_start=True) as session:
            connected(session)
            assert [topic for topic in topics if not refused(session, topic)] == []


def test_what_is_for_the_whole_fleet_reaches_every_edge(edge: BrokerSettings, worker: BrokerSettings) -> None:
    """Key rotations, and chunks that several edges wait for, are published once."""
    topics = ["sliceloop/v1/fleet/model/keys", f"sliceloop/v1/fleet/model/chunk/{'0' * 64}"]
    filters = [topics[0], "sliceloop/v1/fleet/model/chunk/+"]
    with (
        Session(edge, "ct-1-listener", subscriptions=filters, clean_start=True) as agent,
        Session(worker, "worker-1") as cloud,
    ):
        connected(agent), connected(cloud)
        for topic in topics:
            assert cloud.publish(Outbound(topic, b"x")).wait(DEADLINE_S)
            received = agent.receive(DEADLINE_S)
            assert received is not None and received.topic == topic


def test_an_engineer_replays_what_was_quarantined(
    deployed: MosquittoBroker, certificates: Path, worker: BrokerSettings
) -> None:
    """A slice that an engineer publishes on an edge's topic reaches the worker."""
    engineer = settings_of(deployed, certificates, "engineer")
    with (
        Session(worker, "worker-1", subscriptions=[f"{OURS}/slice"], clean_start=True) as cloud,
        Session(engineer, "dead-1", clean_start=True) as desk,
    ):
        connected(cloud), connected(desk)
        assert desk.publish(Outbound(f"{OURS}/slice", b"again")).wait(DEADLINE_S)
        heard = cloud.receive(DEADLINE_S)
        assert heard is not None and heard.payload == b"again"


def test_the_retraining_messages_pass(deployed: MosquittoBroker, certificates: Path, worker: BrokerSettings) -> None:
    """A request reaches a trainer by its shared subscription, the result the worker, and his verdict the dashboard."""
    trainer = settings_of(deployed, certificates, "trainer")
    with (
        Session(worker, "worker-1", subscriptions=["sliceloop/v1/cloud/retrain/result"], clean_start=True) as cloud,
        Session(trainer, "trainer-1", subscriptions=["$share/trainers/sliceloop/v1/cloud/retrain/request"]) as learner,
    ):
        connected(cloud), connected(learner)
        assert cloud.publish(Outbound("sliceloop/v1/cloud/retrain/request", b"please")).wait(DEADLINE_S)
        request = learner.receive(DEADLINE_S)
        assert request is not None and request.payload == b"please"
        assert learner.publish(Outbound("sliceloop/v1/cloud/retrain/result", b"done")).wait(DEADLINE_S)
        result = cloud.receive(DEADLINE_S)
        assert result is not None and result.payload == b"done"
    dashboard = settings_of(deployed, certificates, "dashboard")
    with (
        Session(worker, "worker-1", clean_start=True) as cloud,
        Session(dashboard, "eye", subscriptions=["sliceloop/v1/cloud/retrain/result"], clean_start=True) as eye,
    ):
        connected(cloud), connected(eye)
        assert cloud.publish(Outbound("sliceloop/v1/cloud/retrain/result", b"refused")).wait(DEADLINE_S)
        verdict = eye.receive(DEADLINE_S)
        assert verdict is not None and verdict.payload == b"refused"


def test_without_a_certificate_nobody_gets_in(deployed: MosquittoBroker, certificates: Path) -> None:
    """A client without a certificate is refused, and told what to check."""
    with Session(settings_of(deployed, certificates, None), "nobody") as session:
        wait_until(lambda: session.fatal is not None, "the refusal is noticed")
        assert "certificate" in str(session.fatal)
        assert not session.connected


def test_a_certificate_of_another_authority_does_not_get_in(
    deployed: MosquittoBroker, certificates: Path, tmp_path: Path
) -> None:
    """A certificate that our authority did not sign is refused, whatever name it carries."""
    create_authority(tmp_path)
    foreign = issue_client(tmp_path, "worker")
    settings = quick_settings(
        deployed.port,
        tls_ca_file=certificates / "ca.crt",
        tls_cert_file=foreign.certificate,
        tls_key_file=foreign.key,
    )
    with Session(settings, "stranger") as session:
        wait_until(lambda: session.fatal is not None, "the refusal is noticed")
        assert not session.connected


def test_a_broker_that_is_not_ours_is_not_trusted(
    deployed: MosquittoBroker, certificates: Path, tmp_path: Path
) -> None:
    """A broker whose certificate our authority did not sign gets nothing from us, and we say what to check."""
    create_authority(tmp_path)
    settings = settings_of(deployed, certificates, "worker").model_copy(update={"tls_ca_file": tmp_path / "ca.crt"})
    with Session(settings, "careful") as session:
        wait_until(lambda: session.fatal is not None, "the fault is noticed")
        assert "tls_ca_file" in str(session.fatal)


def test_the_broker_says_its_limit_and_we_keep_it(edge: BrokerSettings) -> None:
    """Ours and the broker's limit agree; with a larger one of ours, the broker's word holds before anything is sent."""
    reckless = edge.model_copy(update={"max_payload_bytes": 10_000_000})
    with Session(reckless, "ct-1-reckless", clean_start=True) as session:
        connected(session)
        assert session.limits.max_packet_bytes == MAX_PAYLOAD_BYTES + INBOUND_HEADROOM_BYTES
        with pytest.raises(OversizeError):
            session.publish(Outbound(f"{OURS}/frame", bytes(2_000_000)))
        assert session.publish(Outbound(f"{OURS}/frame", bytes(MAX_PAYLOAD_BYTES))).wait(DEADLINE_S)
        assert session.connected
