"""One connection to the broker, from CONNECT to its end: the one file that imports paho.

Everything here runs on the session's network thread, which drives paho step by step; so no lock of paho's is ever
contended and no message of paho's own memory outlives the connection.
"""

import logging
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker.acks import AckOrder
from broker.credentials import Credentials
from broker.errors import BrokerError, InvalidMessageError
from broker.inbox import Inbox
from broker.limits import INBOUND_HEADROOM_BYTES, Limits, check, text_fault
from broker.messages import Delivery, Inbound, Outbound
from broker.settings import BrokerSettings

log = structlog.get_logger()

Birth = Callable[[], Sequence[Outbound]]
Settle = Callable[[Delivery, str | None], None]

TICK_S = 1.0
"""How often keepalive and deadlines are looked at when nothing happens."""

LEAVE_TIMEOUT_S = 2.0
"""How long a DISCONNECT may take to be written before the socket is closed without it."""

PAHO_WINDOW = 65_535
"""More than our own window ever is, so that paho never queues by itself."""

WAKE_BYTES = 4_096
MAX_EXPIRY_S = 4_294_967_295
CONNACK_LIMITS = ("ReceiveMaximum", "MaximumPacketSize", "MaximumQoS", "RetainAvailable")
UNSPECIFIED_ERROR = 0x80
PROTOCOL_ERROR = 0x82
RECEIVE_MAXIMUM_EXCEEDED = 0x93
NOT_AUTHORISED = "check the client certificate or user name, and the broker's access rules for it"

REMEDIES = {  # reason codes of MQTT 5, 2.4, that trying again does not change
    0x84: "this broker does not speak MQTT 5: use one that does",
    0x85: "the broker refuses this client id: choose another",
    0x86: "check username and password_file",
    0x87: NOT_AUTHORISED,
    0x8A: "the broker has banned this client: ask its operator",
    0x8C: "the broker wants another way to authenticate: ask its operator",
    0x8E: "another process uses this client id: stop it, or give each its own",
    0x9C: "the broker sends us to another server: change host and port",
    0x9D: "the broker has moved: change host and port",
}


@dataclass(frozen=True)
class Ending:
    """Why a connection ended or did not come about; `remedy` is set when trying again alone does not mend it."""

    reason: str
    remedy: str | None = None
    malformed: bool = False
    """The broker sent a packet that paho cannot read; kept by the broker's session, it would come again and again."""


@dataclass(frozen=True)
class Plan:
    """What every connection of a session begins with."""

    settings: BrokerSettings
    client_id: str
    will: Outbound | None
    subscriptions: tuple[str, ...]
    clean_start: bool
    session_expiry_s: int
    birth: Birth | None


@dataclass(frozen=True)
class Interest:
    """A topic filter that is heard for a while, or no longer."""

    topic_filter: str
    wanted: bool


class Connection:
    """One connection; `open`, then `step` until `ending` is set, then `close`."""

    def __init__(self, plan: Plan, credentials: Credentials, number: int, inbox: Inbox, settle: Settle) -> None:
        self._plan = plan
        self._credentials = credentials
        self._number = number
        self._inbox = inbox
        self._settle = settle
        self._deliveries: dict[int, Delivery] = {}
        self._unanswered: dict[int, str] = {}
        self._acks = AckOrder()
        self._accepted = False
        self._ready_at_s: float | None = None
        self._leave_by_s: float | None = None
        self._faults = _LastFault()
        self.limits = Limits(plan.settings.max_payload_bytes, plan.settings.max_inflight)
        self.session_present = False
        self.refused: str | None = None
        self.ending: Ending | None = None

    @property
    def ready(self) -> bool:
        """Say whether the broker has accepted us and answered every subscription."""
        return self._ready_at_s is not None

    @property
    def lasted_s(self) -> float:
        """Return for how long the connection has been of use."""
        return 0.0 if self._ready_at_s is None else time.monotonic() - self._ready_at_s

    def open(self) -> None:
        """Connect the socket, shake hands for TLS, and queue the CONNECT; a failure sets `ending`."""
        settings = self._plan.settings
        self._client = self._new_client()
        self._ready_by_s = time.monotonic() + settings.connect_timeout_s
        try:
            self._client.connect(
                settings.host,
                settings.port,
                settings.keepalive_s,
                clean_start=self._plan.clean_start,
                properties=self._connect_properties(),
            )
            self._send_small_packets_at_once()
        except ssl.SSLError as error:
            self.ending = Ending(
                f"TLS: {error}", "check tls_ca_file, the host name in the broker's certificate, the port"
            )
        except (OSError, ValueError) as error:  # ValueError: a host name that cannot be encoded
            said = getattr(error, "strerror", None) or str(error)
            self.ending = Ending(said or type(error).__name__)

    def step(self, wake: socket.socket) -> None:
        """Read and write what is there, waiting at most one tick; `wake` ends the wait early.

        While the inbox is nearly full nothing is read, so that TCP holds the broker back: mosquitto 2.0.11 sends a
        whole window more for each PUBACK, whatever our receive maximum.
        """
        self._client.loop_write()
        connected = self._client.socket()
        if connected is None:
            return
        reading = [] if self._crowded() else [connected]
        pending = bool(reading) and isinstance(connected, ssl.SSLSocket) and connected.pending() > 0
        writing = [connected] if self._client.want_write() else []
        readable, _, _ = select.select([*reading, wake], writing, [], 0 if pending else self._patience_s())
        if wake in readable:
            wake.recv(WAKE_BYTES)
        if connected in readable or pending:
            self._client.loop_read()
        self._client.loop_misc()
        self._keep_deadlines()

    def publish(self, outbound: Outbound, delivery: Delivery) -> None:
        """Give a message to paho; its fate goes to `settle`."""
        info = self._client.publish(
            outbound.topic, outbound.payload, outbound.qos, outbound.retain, _publish_properties(outbound)
        )
        if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._deliveries[info.mid] = delivery
        else:
            self._settle(delivery, paho.error_string(info.rc))

    def ack(self, inbound: Inbound) -> None:
        """Send the PUBACK when its turn comes, if the message came on this very connection."""
        if inbound.connection == self._number:
            self._ack(inbound.mid)

    def turn(self, interest: Interest) -> None:
        """Subscribe or unsubscribe, beside what the plan subscribes to."""
        if interest.wanted:
            self._subscribe_to(interest.topic_filter)
        else:
            self._client.unsubscribe(interest.topic_filter)

    def leave(self, reason_code: int = 0) -> None:
        """Queue a DISCONNECT, once; by default the normal one, after which the broker does not send the will."""
        if self._leave_by_s is None and self.ending is None:
            self._leave_by_s = time.monotonic() + LEAVE_TIMEOUT_S
            self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=reason_code) if reason_code else None)

    def close(self) -> None:
        """Close the socket, if it is still open."""
        left_open = self._client.socket()
        if left_open is not None:
            left_open.close()

    def _new_client(self) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._plan.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._plan.settings.connect_timeout_s
        client.max_inflight_messages_set(PAHO_WINDOW)
        client.enable_logger(self._faults.logger)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        # Without this, paho would write to the socket inside publish() and call back before the packet id is known.
        client.on_socket_register_write = _leave_writing_to_step
        if self._plan.settings.username is not None:
            client.username_pw_set(self._plan.settings.username, self._credentials.password)
        if self._credentials.tls is not None:
            client.tls_set_context(self._credentials.tls)
        if self._plan.will is not None:
            will = self._plan.will
            client.will_set(
                will.topic, will.payload, will.qos, will.retain, _publish_properties(will, PacketTypes.WILLMESSAGE)
            )
        return client

    def _send_small_packets_at_once(self) -> None:
        """Switch Nagle's algorithm off, which against delayed TCP ACKs makes each PUBACK wait for 40 ms."""
        opened = self._client.socket()
        if isinstance(opened, socket.socket):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _connect_properties(self) -> Properties:
        properties = _properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = self._plan.session_expiry_s
        properties.ReceiveMaximum = self._plan.settings.max_inflight
        properties.MaximumPacketSize = self._plan.settings.max_payload_bytes + INBOUND_HEADROOM_BYTES
        return properties

    def _ack(self, mid: int) -> None:
        for next_mid in self._acks.acknowledge(mid):
            self._client.ack(next_mid, 1)

    def _crowded(self) -> bool:
        """Say whether one more read, of at most as many packets as our own window, might overfill the inbox."""
        return self._inbox.room < self._plan.settings.max_inflight

    def _patience_s(self) -> float:
        deadline_s = self._leave_by_s or (None if self.ready else self._ready_by_s)
        return TICK_S if deadline_s is None else min(TICK_S, max(0.0, deadline_s - time.monotonic()))

    def _keep_deadlines(self) -> None:
        now_s = time.monotonic()
        if self.ending is not None:
            return
        if self._leave_by_s is not None and now_s >= self._leave_by_s:
            self.ending = Ending("the DISCONNECT could not be written")
        elif not self.ready and now_s >= self._ready_by_s:
            awaited = f"SUBACK for {', '.join(self._unanswered.values())}" if self._accepted else "CONNACK"
            self.ending = Ending(f"no {awaited} within {self._plan.settings.connect_timeout_s:g} s")

    def _on_connect(
        self,
        _client: paho.Client,
        _userdata: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self.ending = Ending(f"the broker refused the connection: {reason}", REMEDIES.get(reason.value))
            return
        self._accepted = True
        self.session_present = flags.session_present
        self.limits = self.limits.tightened(_limits_in(properties))
        if self.session_present:
            self._inbox.forget_resent(self._number)
        self._subscribe()
        self._publish_birth()
        self._check_ready()

    def _subscribe(self) -> None:
        for topic_filter in self._plan.subscriptions:
            self._subscribe_to(topic_filter)

    def _subscribe_to(self, topic_filter: str) -> None:
        code, mid = self._client.subscribe(topic_filter, options=SubscribeOptions(qos=1))
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS and mid is not None:
            self._unanswered[mid] = topic_filter

    def _publish_birth(self) -> None:
        if self._plan.birth is None:
            return
        try:
            for outbound in self._plan.birth():
                check(outbound, self.limits, properties_bytes(outbound))
                self.publish(outbound, Delivery())
        except BrokerError as error:
            log.error("birth message not sent", reason=str(error))
        except Exception:  # the owner's code on our thread
            log.exception("birth failed", client_id=self._plan.client_id)

    def _check_ready(self) -> None:
        if self._accepted and not self._unanswered and self._ready_at_s is None:
            self._ready_at_s = time.monotonic()

    def _on_subscribe(
        self,
        _client: paho.Client,
        _userdata: object,
        mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        topic_filter = self._unanswered.pop(mid, "")
        for reason in reasons:
            if reason.is_failure:
                self.refused = f"subscription to {topic_filter} refused ({reason}): {NOT_AUTHORISED}"
                log.error("subscription refused", topic_filter=topic_filter, reason=str(reason))
        self._check_ready()

    def _on_publish(
        self, _client: paho.Client, _userdata: object, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        delivery = self._deliveries.pop(mid, None)
        if delivery is not None:
            self._settle(delivery, f"the broker refused the message: {reason}" if reason.is_failure else None)

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        if message.qos == 1:
            self._acks.received(message.mid)
        try:
            inbound = _inbound(message, self._number)
        except UnicodeDecodeError:
            log.error("message dropped: its topic is not UTF-8", bytes=len(message.payload))
            self._ack(message.mid)
            return
        if self._inbox.offer(inbound):
            return
        if inbound.qos == 0:
            _tell_dropped(self._inbox.dropped, inbound.topic)
        else:
            # Unacknowledged it stays with the broker, which sends it again on the next connection.
            log.error("inbox full: the broker sent more than our receive maximum", topic=inbound.topic)
            self.leave(RECEIVE_MAXIMUM_EXCEEDED)

    def _on_disconnect(
        self,
        _client: paho.Client,
        _userdata: object,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if self.ending is not None:
            return
        if flags.is_disconnect_packet_from_server:
            self.ending = Ending(f"the broker closed the connection: {reason}", REMEDIES.get(reason.value))
        else:
            malformed = self._accepted and reason.value == PROTOCOL_ERROR
            self.ending = Ending(self._why_lost(reason), self._tls_remedy(), malformed)

    def _why_lost(self, reason: ReasonCode) -> str:
        if not self._faults.text and reason.value == UNSPECIFIED_ERROR:  # paho's word for a socket that has ended
            return "the broker closed the connection"
        return f"connection lost: {self._faults.text or reason}"

    def _tls_remedy(self) -> str | None:
        """Say what to do when the broker hung up over our certificate: in TLS 1.3 it does so after the handshake."""
        hung_up = "alert" in self._faults.text.lower() or "EOF occurred" in self._faults.text
        return NOT_AUTHORISED if self._credentials.tls is not None and not self._accepted and hung_up else None


class _LastFault(logging.Handler):
    """Keeps paho's last error, because its callbacks do not say why a connection was lost."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.text = ""
        self.logger = logging.Logger("paho", logging.ERROR)
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def properties_bytes(outbound: Outbound) -> int:
    """Return how many bytes the message's properties take in the packet, with their length."""
    return len(_publish_properties(outbound).pack())  # type: ignore[no-untyped-call]


def _publish_properties(outbound: Outbound, packet_type: int = PacketTypes.PUBLISH) -> Properties:
    _check_properties(outbound)
    properties = _properties(packet_type)
    if outbound.content_type is not None:
        properties.ContentType = outbound.content_type
    if outbound.user_properties:
        properties.UserProperty = list(outbound.user_properties)
    if outbound.expiry_s is not None:
        properties.MessageExpiryInterval = outbound.expiry_s
    return properties


def _check_properties(outbound: Outbound) -> None:
    for text in (outbound.content_type or "", *(text for pair in outbound.user_properties for text in pair)):
        fault = text_fault(text)
        if fault is not None:
            raise InvalidMessageError(outbound.topic, f"a property {fault}")
    if outbound.expiry_s is not None and not 0 <= outbound.expiry_s <= MAX_EXPIRY_S:
        raise InvalidMessageError(outbound.topic, f"expiry_s {outbound.expiry_s} is not in 0..{MAX_EXPIRY_S}")


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]


def _limits_in(properties: Properties | None) -> dict[str, int]:
    return {name: getattr(properties, name) for name in CONNACK_LIMITS if hasattr(properties, name)}


def _inbound(message: paho.MQTTMessage, connection: int) -> Inbound:
    return Inbound(
        topic=message.topic,
        payload=bytes(message.payload),
        qos=message.qos,
        retained=message.retain,
        content_type=getattr(message.properties, "ContentType", None),
        user_properties=tuple((key, value) for key, value in getattr(message.properties, "UserProperty", ())),
        mid=message.mid,
        connection=connection,
    )


def _tell_dropped(dropped: int, topic: str) -> None:
    if dropped & (dropped - 1) == 0:  # at 1, 2, 4, 8, ...: a flood is not answered with a flood of log lines
        log.warning("inbox full: QoS 0 messages dropped", dropped=dropped, topic=topic)


def _leave_writing_to_step(_client: paho.Client, _userdata: object, _socket: object) -> None:
    """Do nothing: `step` looks by itself whether there is something to write."""
