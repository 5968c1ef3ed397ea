"""A driven replica with a user and their channel."""

from __future__ import annotations

from tests.support.driven_replica import Driven


class DrivenChat:
    """A driven replica, a user and their channel."""

    def __init__(self, capacity: int = 256, replay_window: int = 0) -> None:
        self.driven = Driven(capacity=capacity, replay_window=replay_window)
        self.elsewhere = self.driven.elsewhere
        self.user = self.elsewhere.user()
        self.guild = self.elsewhere.guild(self.user)
        self.channel = self.elsewhere.channel(self.user, self.guild)
        for record in self.elsewhere.records:
            self.driven.deliver_control(record)
