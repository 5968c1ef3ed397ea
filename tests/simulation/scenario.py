"""One run from one seed: clients post and follow channels under all kinds of faults; then the final checks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from tests.simulation.changes import Changes
from tests.simulation.client import DEVICE, Account, Client
from tests.simulation.clock import Activity, Clock
from tests.simulation.cluster import Cluster, Plant
from tests.simulation.devices import Device
from tests.simulation.gateway_device import GatewayDevice
from tests.simulation.leftovers import left_over
from tests.simulation.messages import Messages
from tests.simulation.population import CLIENTS, populate
from tests.simulation.presence import AGREE_SECS, disagreement
from tests.simulation.process import Process
from tests.simulation.rights import END_SECS, Rights
from tests.simulation.subscriber import Subscriber
from tests.simulation.trouble import Trouble
from tests.simulation.watcher import Watcher

POSTS = 3  # per client
CHANGE_SHARE = 0.6  # the share of posts that are followed by a change of some message
WATCHERS = 3  # of the clients
TOKEN_SECS = (5, 11, 3_600, 3_600, 3_600)  # lifetimes of access tokens: some expire during the faults
SIZES = (
    ("", "", "x" * 300, "x" * 1_500),
    ("\x01" * 600,),
)  # suffixes of the texts of a run; one of the second fills a send
SLOW_SHARE = 0.15  # of the readers
FORGET_SHARE = 0.2  # the share of readers that read their channel again from its beginning, and once more at the end
FORGETS = 2  # per such reader, during the faults
TROUBLE_SECS = 12.0  # simulated; after that all faults end
SETTLE_SECS = 90.0  # after which everyone must have everything
ROUND_SECS = 10.0  # the same for one more post to each channel
REST_SECS = AGREE_SECS + 5.0  # after which nothing is held for clients that have gone
LOOK_SECS = 0.5


def no_plant(process: Process) -> None:
    """Plant no bug."""


@dataclass
class Report:
    """The violations of a run, if any. `digest` is equal for equal runs."""

    seed: int
    violations: list[str] = field(default_factory=list)
    posts: int = 0
    changes: int = 0
    deliveries: int = 0
    notifications: int = 0
    reconnects: int = 0
    crashes: int = 0
    restores: int = 0
    digest: str = ""


class _Posted(msgspec.Struct):
    sequence: int
    event_id: str


class Run:
    """`people`: the population. `returned`: users whose rights come back, or come late."""

    def __init__(self, seed: int, plant: Plant = no_plant) -> None:
        self.rng = rng = Random(seed)
        self.clock = Clock()
        self.report = Report(seed)
        token_secs = rng.choice(TOKEN_SECS)
        self.people = populate(token_secs)
        self.returned = {self.people.user_ids[name] for name in ("returning", "newcomer")}
        self.cluster = Cluster(self.clock, rng, self.people.state, token_secs, self.violation, plant)
        self.channels = [*self.people.channels, self.people.doomed_channel, self.people.doomed_guild_channel]
        self.accounts: dict[str, Account] = {}
        self.subscribers: list[Subscriber] = []
        self.forgetful: list[Subscriber] = []
        self.watchers: list[Watcher] = []
        self.devices: list[Device] = []
        self.sockets: list[GatewayDevice] = []
        pairs = [(user_id, channel) for user_id in self.people.user_ids.values() for channel in self.channels]
        self.rights = Rights(self.cluster, pairs)
        self._acknowledged: list[tuple[str, _Posted, str]] = []
        self.messages = Messages(self)
        self._busy = 0  # activities that must end
        self._trace: list[tuple[float, str, str, int]] = []
        self._sizes = rng.choice(SIZES)
        self._spread = rng.choice((0.0, 1.0))  # posts are made at once, or spread over the run

    # --- participants --------------------------------------------------------------------------------

    def client(self, name: str, place: int, device: str = DEVICE) -> Client:
        key = name if device == DEVICE else f"{name}/{device}"
        if key not in self.accounts:
            self.accounts[key] = Account(name, self.people.session(key), device)
        return Client(self.cluster, self.accounts[key], place)

    def follow(self, name: str, channel_id: str, place: int) -> None:
        """Let a user follow a channel from now on."""
        client = self.client(name, place)
        slow = self.rng.random() < SLOW_SHARE and self.clock.now < TROUBLE_SECS
        subscriber = Subscriber(self, client, self.people.user_ids[name], channel_id, slow=slow)
        self.subscribers.append(subscriber)
        self.clock.start(subscriber.follow())
        if not slow and self.rng.random() < FORGET_SHARE:
            self.forgetful.append(subscriber)
            for _ in range(FORGETS):
                self.clock.later(self.rng.uniform(0.2, 1) * TROUBLE_SECS, subscriber.forget)

    def watch(self, name: str, place: int) -> None:
        client = self.client(name, place)
        watcher = Watcher(self, client, self.people.user_ids[name])
        self.watchers.append(watcher)
        self.clock.start(watcher.follow())

    def begin(self, activity: Activity[Any]) -> None:
        """Start an activity that must end before the run does."""
        self._busy += 1
        self.clock.start(self._until_it_ends(activity))

    def _until_it_ends(self, activity: Activity[Any]) -> Activity[None]:
        yield from activity
        self._busy -= 1

    def _gather(self) -> None:
        channels = self.people.channels
        for number in range(CLIENTS):
            name = f"user{number}"
            self.follow(name, channels[number % len(channels)], number)
            self.begin(self._post_some(self.client(name, number), number))
            if number < WATCHERS:
                self.watch(name, number + 1)
        for name, channel_id, place in (
            ("removed", channels[0], 0), ("removed", channels[1], 1), ("revoked", channels[1], 2),
            ("returning", channels[2], 0), ("moderator", channels[2], 1), ("reader0", self.people.doomed_channel, 0),
            ("reader1", self.people.doomed_channel, 1), ("reader0", self.people.doomed_guild_channel, 2),
        ):  # fmt: skip
            self.follow(name, channel_id, place)
        for place, name in enumerate(("removed", "revoked", "returning", "reader1")):
            self.watch(name, place)
        for place, name in enumerate(("owner", "user1", "returning", "removed")):
            device = Device(self, self.client(name, place), self.people.user_ids[name], channels)
            self.devices.append(device)
            self.begin(device.look_now_and_then(TROUBLE_SECS))

        for place, name in enumerate(("user0", "user2", "returning", "removed", "moderator")):
            slow = self.rng.random() < SLOW_SHARE
            socket = GatewayDevice(self, self.client(name, place), self.people.user_ids[name], channels, slow=slow)
            self.sockets.append(socket)
            self.clock.start(socket.follow())
            self.begin(self._post_by_socket(socket))

    def _post_by_socket(self, socket: GatewayDevice) -> Activity[None]:
        for place in range(POSTS):
            yield self.clock.sleep(0.9 * TROUBLE_SECS / POSTS * self.rng.random())
            channel_id = self.rng.choice(self.people.channels)
            if self.rights.may_read(socket.user_id, channel_id) and socket.user_id not in self.returned:
                socket.post(channel_id, f"socket {socket.client.name}.{place}" + self.rng.choice(self._sizes))

    # --- posts ---------------------------------------------------------------------------------------

    def _post_some(self, client: Client, number: int) -> Activity[None]:
        for place in range(POSTS):
            yield self.clock.sleep(0.9 * TROUBLE_SECS / POSTS * (1 - self._spread * self.rng.random()))
            channel_id = self.rng.choice(self.people.channels)
            yield from self.post(client, channel_id, f"{number}.{place}")
            if self.rng.random() < CHANGE_SHARE:
                yield from self.messages.some_change(client, self.rng.choice(self.people.channels))

    def post(self, client: Client, channel_id: str, text: str) -> Activity[None]:
        """Post a message, and retry until it is acknowledged."""
        text += self.rng.choice(self._sizes)
        body = {"content": text, "nonce": f"{client.name}{self.rng.getrandbits(64)}"}
        answer = yield from client.ask("POST", f"/channels/{channel_id}/messages", body)
        if answer.status == 200:
            self.acknowledged(client.name, channel_id, msgspec.json.decode(answer.body), text)
        elif channel_id in self.people.channels and not self.cluster.database.restores:
            self.violation(f"{client.name} cannot post: {answer.status} {answer.body.decode()}")

    def acknowledged(self, name: str, channel_id: str, result: Any, text: str) -> None:
        """Record the answer to a post."""
        posted = msgspec.convert(result, _Posted)
        self._acknowledged.append((channel_id, posted, text))
        self.messages.posted.setdefault(channel_id, []).append((name, posted.event_id))
        self.note("acknowledged", name, posted.sequence)

    # --- the run -------------------------------------------------------------------------------------

    def go(self) -> Report:
        """Run from the start to the final checks."""
        trouble = Trouble(self.cluster, TROUBLE_SECS)
        trouble.begin()
        self.cluster.start()
        self.clock.run(0.05)
        self._gather()
        Changes(self, TROUBLE_SECS).start()
        self.rights.look()
        self._sample()
        self.clock.run(TROUBLE_SECS)
        trouble.end()
        for reading in (*self.subscribers, *self.sockets):
            reading.read_on()
        if self._settle(SETTLE_SECS):
            self._one_more_round()
        self._check()
        self._agree_on_presence()
        for reader in (*self.subscribers, *self.watchers, *self.sockets):
            reader.stop()
        self.clock.run(self.clock.now + REST_SECS)
        self.report.violations += left_over(self.cluster)
        return self._finish()

    def _settle(self, secs: float) -> bool:
        """Wait until everyone has everything; return False after `secs`."""
        end = self.clock.now + secs
        while self.clock.now < end:
            if not self._busy and all(reader.has_all for reader in (*self.subscribers, *self.watchers, *self.sockets)):
                return True
            self.clock.run(self.clock.now + LOOK_SECS)
        if self._busy:
            self.violation(f"{self._busy} activities have not ended: an operation hangs")
        return False

    def _one_more_round(self) -> None:
        """Post to each channel once more: all current followers must get it, because every change of a right has taken effect."""
        self.clock.run(self.clock.now + END_SECS)
        for watcher in self.watchers:
            watcher.settled()
        for subscriber in self.forgetful:
            subscriber.forget()
        self._settle(ROUND_SECS)
        owner = self.client("owner", 1)
        for channel_id in self.channels:
            if self.cluster.database.head(channel_id) is not None:
                self.begin(self.post(owner, channel_id, f"last {channel_id}"))
        self._settle(ROUND_SECS)
        for device in self.devices:
            self.begin(device.level())
        self._settle(ROUND_SECS)

    def _agree_on_presence(self) -> None:
        """Check presence once the bus loses no more messages for all replicas."""
        self.cluster.bus.drop_control = 0.0
        end = self.clock.now + AGREE_SECS
        while (wrong := disagreement(self.cluster)) is not None:
            if self.clock.now >= end:
                self.violation(wrong)
                return
            self.clock.run(self.clock.now + LOOK_SECS)

    def _sample(self) -> None:
        """Check bounds that hold at any moment."""
        for process in self.cluster.processes:
            for ring, depth in process.hub.depths(100):
                if depth > self.cluster.capacity:
                    self.violation(f"ring {ring} is {depth} deep")
        self.clock.later(LOOK_SECS, self._sample)

    # --- final checks --------------------------------------------------------------------------------

    def _check(self) -> None:
        ledger, report = self.cluster.database.ledger, self.report
        texts = [text for channel_id in ledger.channels() for text in map(_text, ledger.log(channel_id)) if text]
        if len(texts) != len(set(texts)):
            self.violation("a post is in the log twice")
        state = self.cluster.database.tables._state
        for guild_id, bans in state.bans.items():
            if bans.keys() & state.members[guild_id].keys():
                self.violation(f"a member of {guild_id} is banned")
        for channel_id, posted, text in self._acknowledged:
            place = ledger.log(channel_id)[posted.sequence - 1 : posted.sequence]
            told = "" if place and place[0].taken is not None else text.strip()
            if posted.event_id not in ledger.lost_ids and [(entry.event_id, _text(entry)) for entry in place] != [
                (posted.event_id, told)
            ]:
                self.violation(f"acknowledged {text[:8]} is not at {posted.sequence} of {channel_id}")
        for reader in (*self.subscribers, *self.watchers, *self.sockets):
            wrong = reader.check()
            if wrong is not None:
                self.violation(wrong)
        report.posts = len(self._acknowledged)
        report.changes = self.messages.changes
        report.deliveries = sum(len(subscriber.received) for subscriber in self.subscribers)
        report.reconnects = sum(subscriber.reconnects for subscriber in self.subscribers)
        report.notifications = sum(watcher.count for watcher in self.watchers)

    def may_have_changed(self, user_id: str, channel_id: str) -> bool:
        """Return whether the user's right to read the channel may have changed or returned in this run."""
        return user_id in self.returned or self.cluster.database.restores > 0

    def is_long_ago(self, at: float) -> bool:
        """Return whether every replica must know an event that was stored then."""
        return self.clock.now > max(at, self.cluster.database.down_until) + END_SECS

    def violation(self, text: str) -> None:
        self.report.violations.append(f"{self.clock.now:.3f} s: {text}")

    def note(self, kind: str, who: str, sequence: int) -> None:
        self._trace.append((self.clock.now, kind, who, sequence))

    def _finish(self) -> Report:
        self.report.crashes = self.cluster.crashes
        self.report.restores = self.cluster.database.restores
        self.report.digest = hashlib.blake2b(repr(self._trace).encode(), digest_size=8).hexdigest()
        return self.report


class _Content(msgspec.Struct):
    content: str = ""  # absent in reactions


class _Event(msgspec.Struct):
    content: _Content


class _Payload(msgspec.Struct):
    event: _Event


_payloads = msgspec.json.Decoder(_Payload)


def _text(entry: Any) -> str:
    return _payloads.decode(entry.payload).event.content.content


def run_seed(seed: int, plant: Plant = no_plant) -> Report:
    """Run one seed to its end; any exception is a violation."""
    run = Run(seed, plant)
    try:
        return run.go()
    except Exception as failure:
        run.violation(f"a replica fell: {failure!r}")
        return run.report
