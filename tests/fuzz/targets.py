"""What is fuzzed: each target takes any bytes and raises only when something is wrong."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec

from openguild_proto.canonical.encode import CanonicalError
from openguild_proto.canonical.event import CanonicalEvent, canonical_bytes, event_hash, event_id, wire_bytes
from openguild_proto.canonical.keys import KeyRing
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.client import ConnectionBroken, HttpClient, StreamClient
from openguild_proto.effects import Effect
from openguild_proto.errors import LocalProtocolError
from openguild_proto.gateway.client import GatewayClient
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.http.message import Request
from openguild_proto.limits import MAX_GATEWAY_LOGS, Limits
from openguild_proto.policy.quotas import StreamLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.schemas.payloads import decode_control, payload_sequence
from openguild_proto.sessions.refresh import hash_refresh_token
from openguild_proto.sessions.tokens import Claims, TokenAuthority, TokenInvalid
from tests.support.gateway import Replica, log_name, opened
from tests.support.wire import HANDSHAKE, connection, drive, masked
from tests.support.world import World

LIMITS = Limits(max_frames_per_minute=0, max_message_bytes=4_096, max_message_fragments=16, max_outbox_bytes=1 << 20)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PURGE")


def pieces(data: bytes) -> tuple[bytes, list[bytes]]:
    """The first byte says how the rest is cut."""
    step, rest = 1 + data[0] % 64, data[1:]
    return rest, [rest[at : at + step] for at in range(0, len(rest), step)] or [b""]


def fuzz_connection(data: bytes) -> None:
    """HTTP and what may follow an upgrade: no exception, and how it is cut makes no difference."""
    if not data:
        return
    whole, cut = pieces(data)
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"  # sent only while the body has not begun to come
    facts, sent = drive(connection(LIMITS), [whole])
    facts_cut, sent_cut = drive(connection(LIMITS), cut)
    assert facts == facts_cut
    assert sent.replace(interim, b"") == sent_cut.replace(interim, b"")


def fuzz_frames(data: bytes) -> None:
    """Frames of an open WebSocket: raw bytes, or one frame for each line with a right mask and length."""
    if len(data) < 2:
        return
    whole, cut = pieces(data[1:])
    if data[0] & 1:
        frames = [masked(line[0], line[1:]) for line in whole.split(b"\n") if line]
        whole = b"".join(frames)
        cut = [whole[at : at + 3] for at in range(0, len(whole), 3)] or [b""]
    one, other = connection(LIMITS), connection(LIMITS)
    drive(one, [HANDSHAKE])
    drive(other, [HANDSHAKE])
    assert drive(one, [whole]) == drive(other, cut)


def _populated() -> tuple[World, tuple[str, ...]]:
    world = World()
    token = world.user("alice")
    guild = msgspec.json.decode(world.ask("POST", "/guilds", {"name": "g"}, token).body)["guild_id"]
    channel = msgspec.json.decode(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, token).body)[
        "channel_id"
    ]
    return world, (token, guild, channel)


SIZES = {"l": 32_000, "L": 65_400}
WORLD, (TOKEN, GUILD, CHANNEL) = _populated()


def fuzz_requests(data: bytes) -> None:
    """Line by line: method, target, headers, an empty line, a body. Every request has an answer, whatever it holds.

    Behind the method's letter `u` asks for an upgrade, `l` and `L` repeat the body until a route's limit is passed or
    nearly so. No effect holds an integer that PostgreSQL's bigint cannot: memory would not notice.
    """
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    number, _, target = first.partition(" ")
    target = target.replace("$G", GUILD).replace("$C", CHANNEL)
    path, _, query = target.partition("?")
    headers = [("authorization", f"Bearer {TOKEN}"), ("content-type", "application/json")]
    headers += [(name.lower(), value) for name, _, value in (line.partition(":") for line in lines)]
    for letter, size in SIZES.items():
        if letter in number[1:] and body:
            body *= 1 + size // len(body)
    world = copy.copy(WORLD)
    world.tables = copy.deepcopy(WORLD.tables)
    world.service = dataclasses.replace(
        WORLD.service, address_logins=SlidingWindow(9, 60), account_logins=SlidingWindow(9, 60),
        address_messages=SlidingWindow(9, 60), user_messages=SlidingWindow(9, 60), sockets=StreamLimiter(9, 9, 9),
    )  # fmt: skip
    request = Request(
        method=METHODS[ord(number[0]) % len(METHODS)] if number else "GET", path=path, query=query, headers=tuple(headers),
        body=body, request_id="r", client_address="192.0.2.1", is_upgrade=number.endswith("u"),
    )  # fmt: skip
    answer = world.run(request, before=_check_integers)
    assert getattr(answer, "status", 101) != 500


def _check_integers(place: int, effect: Effect[Any]) -> None:
    for value in msgspec.structs.asdict(effect).values():
        assert not isinstance(value, int) or -(2**63) <= value < 2**63, effect


KEYS = SigningKey(bytes(32))
AUTHORITY = TokenAuthority(KeyRing(KEYS), cache_size=64)
GOOD = AUTHORITY.issue(Claims("s", "u", "n", 0, 4 * 10**15))


def fuzz_tokens(data: bytes) -> None:
    """Only what was issued is accepted."""
    text = data.decode("utf-8", "surrogateescape")
    hash_refresh_token(text)
    try:
        claims = AUTHORITY.verify(text, 0)
    except TokenInvalid:
        return
    assert text == GOOD, claims


def fuzz_events(data: bytes) -> None:
    """What can be made canonical is stable: it hashes to one id however often it travels."""
    try:
        event = msgspec.json.decode(data, type=CanonicalEvent)
        canonical = canonical_bytes(event)
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        CanonicalError,
    ):  # msgspec has two words for bytes that are no UTF-8
        return
    identifier = event_id(event_hash(canonical))
    again = msgspec.json.decode(wire_bytes(canonical, identifier, {}), type=CanonicalEvent)
    assert canonical_bytes(again) == canonical
    assert again.event_id == identifier


def fuzz_peers(data: bytes) -> None:
    """What other replicas and servers say: control messages, payloads, answers, streams."""
    if not data:
        return
    for decode in (decode_control, payload_sequence):
        try:
            decode(data)
        except (msgspec.DecodeError, ValueError):
            continue
    whole, cut = pieces(data)
    client = HttpClient("localhost")
    client.send_request("GET", "/")
    try:
        for part in cut:
            if client.receive_data(part) is not None:
                break
    except (ConnectionBroken, LocalProtocolError):
        client = HttpClient("localhost")
    stream = StreamClient("c", 0, lambda: 0.5)
    stream.connect("localhost", "t", 0.0)
    stream.data_to_send()
    stream.receive_data(whole, 0.0)


def fuzz_gateway(data: bytes) -> None:
    """Line by line, what an authenticated client says to a gateway, or a server to its client: nothing but a close code."""
    if not data:
        return
    encoding = Encoding.MSGPACK if data[0] & 1 else Encoding.JSON
    messages = [line if data[0] & 2 else _text(line) for line in data[1:].split(b"\n")]
    if data[0] & 4:
        client = GatewayClient(encoding, jitter=lambda: 0.5, random_bytes=bytes)
        client.follow(log_name(1))
        client.start("t", 0.0)
        client.connected(0.0)
        for message in messages:
            client.received(message, 0.0)
            while client.next_event() is not None:
                continue
        return
    socket = opened(Replica(encoding=encoding))
    for message in messages:
        if socket.server.wants_messages:
            socket.server.receive(message, 0.0)
            socket.pump()
    if socket.closed is None:
        socket.heard()
    assert len(socket.server.subscriptions) <= MAX_GATEWAY_LOGS
    socket.leave()
    assert not any(socket.replica.holds.values())


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "connection": fuzz_connection, "frames": fuzz_frames, "requests": fuzz_requests, "tokens": fuzz_tokens,
    "events": fuzz_events, "peers": fuzz_peers, "gateway": fuzz_gateway,
}  # fmt: skip
