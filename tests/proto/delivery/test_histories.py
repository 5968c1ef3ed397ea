"""Random histories of guilds, peers, answers that get lost, processes that die: every mirror ends as its owner's log is.

At each event that a mirror stores: it follows the one before, and none comes after the removal of the peer's last member.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck, given, settings

from openguild_proto.canonical.keys import decode_unpadded
from openguild_proto.canonical.receipts import chain_over, first_link, receipt_message
from openguild_proto.canonical.signing import verify
from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.federation import AskPeer, PeerUnavailable
from openguild_proto.effects.replica import ReadHeads
from openguild_proto.limits import MAX_PEER_BACKOFF_SECS, PEER_HEADS_SECS
from tests.support.deeds import NOW
from tests.support.driven_deliveries import SIGNER, DrivenDeliveries, ModelPeer
from tests.support.owner import Owner

STEP = st.tuples(
    st.sampled_from([
        "post", "post", "post", "many", "rename", "channel", "drop", "join", "join", "leave", "leave", "delete", "guild",
        "wait", "wait", "long wait", "lose", "refuse", "break", "mend", "mend", "kill", "shrink", "contact", "hint",
    ]),
    st.integers(0, 9), st.integers(0, 9),
)  # fmt: skip


class History:
    """Some guilds, three peers, two processes."""

    def __init__(self, seed: int) -> None:
        self.owner = Owner()
        self.peers = {f"p{number}.test": ModelPeer(f"p{number}.test") for number in range(3)}
        self.driven = DrivenDeliveries(self.owner.tables, self.peers, seed)
        self.members: list[tuple[str, str, ModelPeer]] = []
        self.last: dict[tuple[str, str], int] = {}  # (peer, guild): the removal of its last member
        self.count = 0
        self.moment = NOW
        for _ in range(2):
            self.add_process()
        self.owner.channel(self.owner.guild())

    def add_process(self) -> None:
        self.count += 1
        self.driven.add(f"process {self.count}")

    def do(self, kind: str, one: int, two: int) -> None:
        owner, driven = self.owner, self.driven
        peer = list(self.peers.values())[one % 3]
        guild = list(owner.guilds)[two % len(owner.guilds)] if owner.guilds else owner.guild()
        channels = owner.guilds[guild]
        channel = channels[one % len(channels)] if channels else owner.channel(guild)
        self.moment += 1_000
        match kind:
            case "post" | "many":
                owner.post(channel, 260 if kind == "many" else 1)
                driven.grew_channel(channel)
            case "rename":
                owner.rename(guild)
            case "channel":
                owner.channel(guild)
            case "drop":
                owner.drop_channel(guild, channel)
            case "guild":
                owner.guild()
            case "join":
                self.last.pop((peer.server, guild), None)
                self.members.append((guild, owner.join(guild, peer, driven.wall_ms), peer))
            case "leave" if self.members:
                self.leave(*self.members.pop(one % len(self.members)))
            case "delete" if one < 3:
                owner.drop_guild(guild)
                self.members = [member for member in self.members if member[0] != guild]
            case "wait":
                driven.run(one * 0.3)
            case "long wait":
                driven.run(one * 100)
            case "lose":
                driven.loses_answer = lambda: driven.random.random() < 0.5
            case "refuse":
                driven.fails = lambda effect: PeerUnavailable("p0.test", "away") if self.is_unlucky(effect) else None
            case "break":
                driven.fails = lambda effect: StorageUnavailable() if driven.random.random() < 0.4 else None
            case "mend":
                driven.fails, driven.loses_answer = lambda effect: None, lambda: False
            case "kill" if driven.processes:
                del driven.processes[one % len(driven.processes)]
                self.add_process()
            case "shrink":
                logs = [log for log in peer.logs.values() if log.events]
                if logs:
                    del logs[two % len(logs)].events[one:]
            case "contact":
                driven.at(driven.processes[one % 2]).contacted(peer.server)
            case "hint":
                driven.at(driven.processes[one % 2]).grew(channel)
        driven.grew()

    def is_unlucky(self, effect: Any) -> bool:
        return isinstance(effect, AskPeer) and self.driven.random.random() < 0.6

    def leave(self, guild: str, user: str, peer: ModelPeer) -> None:
        place = self.owner.leave(guild, user, self.driven.wall_ms)
        if not any((guild, peer) == (other, of) for other, _, of in self.members):
            self.last[peer.server, guild] = place

    def settle(self) -> None:
        self.driven.fails, self.driven.loses_answer = lambda effect: None, lambda: False
        for process in self.driven.processes:
            for peer in self.peers:
                self.driven.at(process).contacted(peer)
        self.driven.run(MAX_PEER_BACKOFF_SECS + 4 * PEER_HEADS_SECS)

    def check(self) -> None:
        for peer in self.peers.values():
            mirrored = {guild for guild, _, of in self.members if of is peer}
            assert {log.guild_id for log in peer.logs.values()} == mirrored
            for log_id, log in peer.logs.items():
                if log_id == log.guild_id or log_id in self.owner.guilds[log.guild_id]:  # not of a deleted channel
                    assert log.events == self.owner.events(log_id)[log.base :]
            for guild in mirrored:
                for log_id in self.owner.guilds[guild]:
                    assert log_id in peer.logs or self.owner.events(log_id) == []

    def check_receipts(self) -> None:
        """What a mirror was given last is what its chain gives, wherever that begins."""
        for peer in self.peers.values():
            for log_id, log in peer.logs.items():
                kept = self.owner.tables._state.chains.get(log_id)
                if log.receipt is None or log.chain is None or kept is None:
                    continue
                heads = self.owner.tables.perform(ReadHeads(channel_ids=(log_id,)))
                assert not heads or heads[log_id].epoch == log.epoch
                begin = min(kept.checkpoints)
                ids = [(at, event_id(wire)) for at, wire in enumerate(self.owner.events(log_id), start=1)]
                value = chain_over(first_link(log_id, log.epoch, begin), log_id, log.epoch, ids[begin : log.sequence])
                assert decode_unpadded(log.chain) == value
                message = receipt_message(value, log_id, log.epoch, log.sequence)
                assert verify(SIGNER.public, message, decode_unpadded(log.receipt))


def event_id(wire: bytes) -> str:
    found: str = msgspec.json.decode(wire)["event_id"]
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEP, max_size=40), seed=st.integers(0, 2**32))
def test_every_mirror_ends_as_its_owners_log(steps: list[tuple[str, int, int]], seed: int) -> None:
    history = History(seed)
    for step in steps:
        history.do(*step)
        for (server, guild), last in history.last.items():
            log = history.peers[server].logs.get(guild)
            assert log is None or log.sequence <= last
    history.settle()
    history.check()
    history.check_receipts()
