"""The batched flush on real sockets: every byte once and in order, whatever the kernel takes; descriptors never misused."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from openguild_proto.fanout import native
from openguild_proto.fanout.hub import Hub
from openguild_proto.ws.frames import text_frame

if not native.NATIVE or os.environ.get("OPENGUILD_PURE") == "1":
    pytest.skip("the flush is compiled, and this run declines compiled parts", allow_module_level=True)

from openguild_runtime.net._flush import flush

Ring = native.Ring


class Pair:
    """A subscriber's socket and the client's end of it."""

    def __init__(self, send_buffer: int = 4_096) -> None:
        self.server, self.client = socket.socketpair()
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.server.setblocking(False)
        self.client.setblocking(False)
        self.got = bytearray()
        self.rest = b""

    def read(self, size: int = 1 << 20) -> bytes:
        """What has arrived, up to `size` bytes."""
        try:
            data = self.client.recv(size)
        except BlockingIOError:
            return b""
        self.got += data
        return data

    def close(self) -> None:
        self.server.close()
        self.client.close()


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made = [Pair() for _ in range(3)]
    yield made
    for pair in made:
        pair.close()


def attach(ring: Ring, pair: Pair) -> int:
    slot = ring.attach(ring.head)
    ring.bind(slot, pair.server.fileno())
    return slot


def test_one_call_serves_everybody_who_is_behind(pairs: list[Pair]) -> None:
    ring = Ring(0)
    slots = [attach(ring, pair) for pair in pairs]
    for payload in (b"one", b"two"):
        ring.publish(text_frame(payload))
    assert flush(ring, 100, 65_536, 1.0) == (3, 0, [])
    assert [bytes(pair.read()) for pair in pairs] == [text_frame(b"one") + text_frame(b"two")] * 3
    assert [ring.cursor(slot) for slot in slots] == [2, 2, 2]
    assert flush(ring, 100, 65_536, 1.0) == (0, 0, [])


def test_the_limit_takes_turns(pairs: list[Pair]) -> None:
    ring = Ring(0)
    for pair in pairs:
        attach(ring, pair)
    ring.publish(b"x")
    assert [flush(ring, 2, 100, 1.0)[0] for _ in range(3)] == [2, 1, 0]
    assert [bytes(pair.read()) for pair in pairs] == [b"x"] * 3
    assert flush(ring, 0, 100, 1.0) == (0, 0, [])


def test_time_ends_a_call_early_and_the_next_goes_on() -> None:
    ring, many = Ring(0), [Pair() for _ in range(20)]
    for pair in many:
        attach(ring, pair)
    ring.publish(b"x")
    calls = []
    while (called := flush(ring, 100, 100, 0.0))[1]:
        calls.append(called[0])
    assert sum(calls) + called[0] == 20
    assert 0 < max(calls) < 10, "some are served, however little time there is"
    assert [bytes(pair.read()) for pair in many] == [b"x"] * 20
    for pair in many:
        pair.close()


def test_who_has_more_than_was_sent_is_left(pairs: list[Pair]) -> None:
    """Nothing else would tell the caller that they are to be served again."""
    ring = Ring(0)
    for pair in pairs[:2]:
        attach(ring, pair)
    for _ in range(3):
        ring.publish(b"x" * 100)
    attach(ring, pairs[2])
    assert [flush(ring, 100, 200, 1.0) for _ in range(3)] == [(2, 2, []), (2, 0, []), (0, 0, [])]
    assert [len(pair.read()) for pair in pairs] == [300, 300, 0]


def test_a_limit_beyond_the_slots_asks_for_no_more_memory_than_they_need(pairs: list[Pair]) -> None:
    """2**61 entries of 32 bytes are 0 bytes, modulo 2**64: what the slots report must not be written behind them."""
    ring = Ring(0)
    assert flush(ring, sys.maxsize, 100, 1.0) == (0, 0, [])
    slots = [attach(ring, pair) for pair in pairs]
    for pair in pairs:
        pair.client.close()
    ring.publish(b"x")
    for limit in (1 << 61, sys.maxsize):
        served, _, troubles = flush(ring, limit, 100, 1.0)
        assert (served, [slot for slot, _, _ in troubles]) == (3, slots)
        for slot in slots:
            ring.park(slot, False)


def test_a_full_kernel_parks_and_a_cut_frame_s_rest_is_handed_over(pairs: list[Pair]) -> None:
    ring = Ring(0, 256, 1 << 24)
    slot = attach(ring, pairs[0])
    frame = text_frame(b"x" * 300_000)
    ring.publish(frame)
    served, _, [(troubled, rest, error)] = flush(ring, 10, 1 << 20, 1.0)
    assert (served, troubled, error) == (1, slot, 0)
    assert ring.is_parked(slot)
    assert 0 < len(rest) < len(frame)
    assert ring.cursor(slot) == 1, "the frame's rest is the outbox's now"
    got = b""
    while data := pairs[0].read():
        got += data
    assert got + rest == frame
    assert flush(ring, 10, 1 << 20, 1.0) == (0, 0, []), "parked"


def test_an_error_is_reported_for_its_subscriber_alone(pairs: list[Pair]) -> None:
    ring = Ring(0)
    slots = [attach(ring, pair) for pair in pairs]
    pairs[1].client.close()
    ring.publish(b"x")
    served, _, [(troubled, rest, error)] = flush(ring, 10, 100, 1.0)
    assert (served, troubled, rest) == (3, slots[1], b"")
    assert error != 0
    assert [bytes(pair.read()) for pair in (pairs[0], pairs[2])] == [b"x", b"x"]


def test_a_reused_descriptor_is_never_written_to() -> None:
    """The attempt: a subscriber leaves, its socket is closed, and another connection gets the same number."""
    hub = Hub(ring_type=Ring)
    hub.open("c", 0)
    first, stays = Pair(), Pair()
    number = first.server.fileno()
    leaving = hub.subscribe("c", 0, handle=number)
    hub.subscribe("c", 0, handle=stays.server.fileno())
    hub.unsubscribe(leaving)  # the order that the runtime keeps: out of the ring, then closed
    first.close()
    stranger, client = socket.socketpair()
    while stranger.fileno() != number:  # take numbers until the one of the closed socket comes up
        os.dup2(stranger.fileno(), number)
        stranger = socket.socket(fileno=number)
    hub.publish("c", text_frame(b"secret"), 1)
    assert flush(hub.frames("c"), 10, 65_536, 1.0) == (1, 0, [])
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(100)
    assert stays.read() == text_frame(b"secret")
    newcomer = hub.subscribe("c", 1, handle=number)
    hub.publish("c", text_frame(b"for both"), 2)
    flush(hub.frames("c"), 10, 65_536, 1.0)
    assert client.recv(100) == text_frame(b"for both"), "the slot is the newcomer's, bound anew"
    assert newcomer.position == 2
    for sock in (stranger, client):
        sock.close()
    stays.close()


def test_a_socket_whose_gate_is_shut_is_passed_over(pairs: list[Pair]) -> None:
    ring = Ring(0)
    slots = [attach(ring, pair) for pair in pairs]
    gates = bytearray(max(pair.server.fileno() for pair in pairs))  # the highest handle has none
    gates[pairs[0].server.fileno()] = 1
    ring.publish(b"x")
    assert flush(ring, 10, 100, 1.0, gates) == (3, 0, [(slots[0], b"", 0)])
    assert [pair.read() for pair in pairs] == [b"", b"x", b"x"]
    assert [ring.is_parked(slot) for slot in slots] == [True, False, False]
    ring.park(slots[0], False)
    assert flush(ring, 10, 100, 1.0) == (1, 0, [])


def test_an_unbound_slot_is_left_alone() -> None:
    ring = Ring(0)
    ring.attach(0)
    ring.publish(b"x")
    assert flush(ring, 10, 100, 1.0) == (0, 0, [])


@given(
    st.lists(st.tuples(st.sampled_from(["publish", "flush", "read", "drain"]), st.integers(1, 9_000)), max_size=60),
)
@settings(deadline=None, max_examples=60)
def test_any_interleaving_of_publishing_flushing_and_reading_keeps_the_bytes(steps: list[tuple[str, int]]) -> None:
    ring = Ring(0, 1_000, 1 << 26)
    pairs = [Pair(), Pair()]
    slots = [attach(ring, pair) for pair in pairs]
    log = bytearray()
    try:
        for what, size in steps:
            if what == "publish":
                frame = text_frame(bytes([size % 251]) * size)
                log += frame
                ring.publish(frame)
            elif what == "flush":
                for slot, rest, error in flush(ring, size % 3 + 1, size, 1.0)[2]:
                    assert error == 0
                    pairs[slots.index(slot)].rest += rest
            elif what == "read":
                pairs[size % 2].read(size)
            else:
                write_rest(ring, slots[size % 2], pairs[size % 2])
        for pair, slot in zip(pairs, slots, strict=True):
            while len(pair.got) < len(log):
                pair.read()
                write_rest(ring, slot, pair)
                for troubled, rest, _ in flush(ring, 2, 65_536, 1.0)[2]:
                    pairs[slots.index(troubled)].rest += rest
            assert bytes(pair.got) == bytes(log)
    finally:
        for pair in pairs:
            pair.close()


def write_rest(ring: Ring, slot: int, pair: Pair) -> None:
    """What the pump does: the rest of a cut frame first, then the slot is the flush's again."""
    if pair.rest:
        try:
            pair.rest = pair.rest[pair.server.send(pair.rest) :]
        except BlockingIOError:
            return
    if not pair.rest:
        ring.park(slot, False)
