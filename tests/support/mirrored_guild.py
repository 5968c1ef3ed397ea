"""A guild in memory that peers mirror, and one process that delivers to them."""

from __future__ import annotations

from tests.support.driven_deliveries import DrivenDeliveries, ModelPeer
from tests.support.owner import Owner


class World:
    """An owner, one process, and peers that mirror a guild with one channel."""

    def __init__(self, peers: int = 1) -> None:
        self.owner = Owner()
        self.guild = self.owner.guild()
        self.channel = self.owner.channel(self.guild)
        self.peers = {f"p{number}.test": ModelPeer(f"p{number}.test") for number in range(peers)}
        self.users = [self.owner.join(self.guild, peer) for peer in self.peers.values()]
        self.driven = DrivenDeliveries(self.owner.tables, self.peers)
        self.owner.tables.take_grown()
        self.process = self.driven.add("one")
        self.driven.run(1)
        for peer in self.peers.values():
            peer.requests.clear()

    @property
    def peer(self) -> ModelPeer:
        return next(iter(self.peers.values()))

    def post(self, count: int = 1, text: str = "hi") -> None:
        self.owner.post(self.channel, count, text)
        self.grew(self.channel)

    def grew(self, channel_id: str) -> None:
        self.driven.grew_channel(channel_id)
        self.driven.run(0.02)

    def assert_level(self) -> None:
        for peer in self.peers.values():
            for log_id in (self.guild, *self.owner.guilds[self.guild]):
                log = peer.logs[log_id]
                assert log.events == self.owner.events(log_id)[log.base :], log_id
