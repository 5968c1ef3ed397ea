"""Devices that are mostly offline and then synchronise: the logs of a guild, of the user, and of channels."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from openguild_proto.client.log_views import GuildView, UserView
from openguild_proto.client.view import ChannelView
from tests.simulation.client import Client
from tests.simulation.clock import Activity

if TYPE_CHECKING:
    from tests.simulation.scenario import Run

View: TypeAlias = "GuildView | UserView | ChannelView"
AWAY_SECS = 4.0  # longest time between two synchronisations
LIMITS = (1, 3, 20)  # events per answer
MAX_ANSWERS = 500  # after which a device must be up to date


class Device:
    """A device of `client` that follows logs only by /sync. Views start again when the server says so."""

    def __init__(self, run: Run, client: Client, user_id: str, channels: tuple[str, ...]) -> None:
        self.client = client
        self._run = run
        self._user_id = user_id
        self._guild = f"guild:{run.people.guild_id}"
        self._views: dict[str, GuildView | UserView | ChannelView] = {}
        self._epochs: dict[str, int] = {}
        self._gone: set[str] = set()
        for name in (self._guild, f"user:{user_id}", *(f"channel:{channel_id}" for channel_id in channels)):
            self._begin(name, 1)

    def look_now_and_then(self, until: float) -> Activity[None]:
        """Synchronise from time to time, until a time of the run."""
        clock, rng = self._run.clock, self._run.rng
        while clock.now < until:
            yield clock.sleep(rng.uniform(0, AWAY_SECS))
            yield from self._sync(rng.choice(LIMITS))

    def level(self) -> Activity[None]:
        """Synchronise until nothing is left, and compare the views with the tables."""
        for _ in range(MAX_ANSWERS):
            more = yield from self._sync(LIMITS[-1])
            if not more:
                wrong = wrong_view(self._run, self._user_id, self._views, self._gone)
                if wrong is not None:
                    self._run.violation(f"{self.client.name}: a device's view of {wrong} is not the server's")
                return
        self._run.violation(f"{self.client.name}: a device is not level after {MAX_ANSWERS} answers")

    def _begin(self, name: str, epoch: int) -> None:
        self._views[name] = new_view(name)
        self._epochs[name] = epoch

    def _sync(self, limit: int) -> Activity[bool]:
        positions = [
            {"log": name, "epoch": self._epochs[name], "sequence": view.head} for name, view in self._views.items()
        ]
        answer = yield from self.client.ask("POST", "/sync", {"positions": positions, "limit": limit})
        if answer.status != 200:
            self._run.violation(f"{self.client.name} cannot sync: {answer.status} {answer.body.decode()}")
            return False
        told = msgspec.json.decode(answer.body, type=_Answer)
        self._gone = {line.log for line in told.logs if line.status == "gone"}
        for line in told.logs:
            self._take(line)
        return told.more or any(line.status == "restarted" for line in told.logs)

    def _take(self, line: _Line) -> None:
        if line.status == "restarted" and line.epoch is not None:
            self._begin(line.log, line.epoch)
        for event in line.events:
            try:
                self._views[line.log].apply(event.sequence, bytes(event.event))
            except ValueError as hole:
                self._run.violation(f"{self.client.name} was told of {line.log} with a hole: {hole}")


def new_view(log: str) -> View:
    """Return an empty view of a log."""
    kinds: dict[str, type[View]] = {"guild": GuildView, "user": UserView, "channel": ChannelView}
    return kinds[log.partition(":")[0]]()


def wrong_view(run: Run, user_id: str, views: Mapping[str, View], gone: Set[str]) -> str | None:
    """Return the log whose view differs from the tables, or None. `gone`: logs that the user may not read."""
    state = run.cluster.database.tables._state
    own = views[f"user:{user_id}"]
    assert isinstance(own, UserView)
    devices = {f.device_id for f in state.families.values() if f.user_id == user_id and not f.revoked}
    guilds = {guild_id for guild_id, members in state.members.items() if user_id in members}
    read = {c: channel.reads.get(user_id, 0) for c, channel in state.channels.items()}
    joined = user_id in run.returned  # joining marks every channel as read, without an event
    differs = any(own.read.get(c, 0) != sequence for c, sequence in read.items() if not joined or c in own.read)
    if (own.devices, own.guilds & set(state.guilds), own.display_name) != (
        devices, guilds, state.users[user_id].display_name,
    ) or differs:  # fmt: skip
        return f"user:{user_id}"
    name = f"guild:{run.people.guild_id}"
    guild = views[name]
    assert isinstance(guild, GuildView)
    if name not in gone and _shown(guild) != _stored(state, run.people.guild_id):
        return name
    return None


def _shown(view: GuildView) -> Any:
    channels = {c: (channel.name, channel.topic, channel.position) for c, channel in view.channels.items()}
    return view.name, channels, {user: (member.username, member.role) for user, member in view.members.items()}


def _stored(state: Any, guild_id: str) -> Any:
    channels = {
        channel.record.channel_id: (channel.record.name, channel.record.topic, channel.record.position)
        for channel in state.channels_of_guild(guild_id)
    }
    members = {user: (state.users[user].username, held.role) for user, held in state.members[guild_id].items()}
    return state.guilds[guild_id].name, channels, members


class _Event(msgspec.Struct):
    sequence: int
    event: msgspec.Raw


class _Line(msgspec.Struct):
    log: str
    status: str
    epoch: int | None = None
    events: list[_Event] = []


class _Answer(msgspec.Struct):
    logs: list[_Line]
    more: bool
