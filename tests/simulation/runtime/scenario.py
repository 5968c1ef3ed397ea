"""One run from one seed: clients post and follow channels under all kinds of faults; then the final checks."""

from __future__ import annotations

import hashlib
import logging
import random
import sys
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import anyio
import msgspec
import structlog

from openguild_proto.client import Delivered, Disconnected, Notified, Opened, Session, StreamClient, StreamEvent
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.limits import MAX_PAGE_EVENTS, MAX_QUEUE_BYTES, MAX_QUEUE_EVENTS
from openguild_proto.operations.context import Settings
from openguild_proto.settings.sections import SessionSettings
from openguild_runtime.client import ApiError, ChannelEvent, Client, OutcomeUnknown, StreamEnded, Subscription
from tests.simulation.runtime import loop as simulated
from tests.simulation.runtime.cluster import QUEUE_CAPACITY, Cluster, Faults, Plant, Replica
from tests.simulation.runtime.loop import SimLoop, Stalled
from tests.simulation.runtime.people import DEVICE, Account, Person, Watch, log_in, register, user_id
from tests.simulation.runtime.report import Report
from tests.support.world import World, decoded

REPLICAS = 3
CLIENTS = 20
CHANNELS = 3
WATCHERS = 3  # clients with a notification stream
POSTS = 3  # per client
TOKEN_SECS = (5, 11, 3_600, 3_600)  # lifetimes of access tokens: some expire during the faults
SIZES = (
    ("", "", "x" * 500, "x" * 3_900),
    ("\x01" * 3_900,),
)  # suffixes of the texts of a run; three of the second fill a send
TROUBLE_SECS = 12.0  # simulated; after that all faults end
SETTLE_SECS = 90.0  # after which everyone must have everything
RESET_PATIENCE_SECS = 15.0  # after which a replica has closed reset connections
SAMPLE_SECS = 0.5


def no_plant(replica: Replica) -> None:
    """Plant no bug."""


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - simulated time costs nothing
        await anyio.sleep(0.1)


class Run:
    def __init__(self, seed: int, plant: Plant = no_plant) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.plant = plant
        self.report = Report(seed)
        self.people: list[Person] = []
        self.posters = 0
        self.watched: set[str] = set()  # streams that must end for good and have not yet
        self._trace = hashlib.blake2b(digest_size=8)
        self.token_secs = self.rng.choice(TOKEN_SECS)
        self.sizes = self.rng.choice(SIZES)
        self.spread = self.rng.choice((0.0, 1.0))  # posts are made at once, or spread over the run
        self.world = World(Settings(session=SessionSettings(access_ttl_secs=self.token_secs)))
        self.now: Callable[[], float]
        self.channels: list[str] = []
        self.departures: list[tuple[Callable[..., Awaitable[None]], tuple[Any, ...]]] = []

    # --- set-up --------------------------------------------------------------------------------------

    def _populate(self, cluster: Cluster) -> None:
        """Store a guild, its channels and its members before the faults begin, and choose who leaves during the run."""
        world = self.world
        owner = register(world, "owner")
        guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, owner.access_token))["guild_id"]
        for number in range(CHANNELS):
            answer = world.ask("POST", f"/guilds/{guild}/channels", {"name": f"c{number}"}, owner.access_token)
            self.channels.append(decoded(answer)["channel_id"])
        invite = decoded(world.ask("POST", f"/guilds/{guild}/invites", {}, owner.access_token))["code"]

        def member(name: str) -> Session:
            session = register(world, name)
            assert world.ask("POST", f"/invites/{invite}/accept", {}, session.access_token).status == 200
            return session

        for number in range(CLIENTS):
            name = f"user{number}"
            account = self._account(cluster, name, member(name), number)
            person = Person(number, account, self.channels[number % CHANNELS])
            person.watch = Watch() if number < WATCHERS else None
            self.people.append(person)
        session = member("removed")
        membership = f"/guilds/{guild}/members/{user_id(world, session)}"
        removed, remover = self._account(cluster, "removed", session, 0), self._account(cluster, "owner", owner, 1)
        self._ending(removed, (self.channels[0],), {404, 4403}, remover, membership)
        revoked = self._account(cluster, "revoked", member("revoked"), 2)
        revoker = self._account(cluster, "revoked", log_in(world, "revoked", "another"), 0)
        self._ending(revoked, (self.channels[1], None), {401}, revoker, f"/sessions/devices/{DEVICE}")

    def _ending(self, who: Account, channels: tuple[str | None, ...], codes: set[int], by: Account, path: str) -> None:
        """Expect the streams of `who` to end for good with one of `codes`, at any replica, when `by` has deleted `path`."""
        self.departures.append((self._delete, (by, path)))
        for channel_id in channels:
            name = f"{who.name}: {channel_id}"
            self.watched.add(name)
            self.departures.append((self._follow_to_the_end, (who, channel_id, codes, name)))

    def _account(self, cluster: Cluster, name: str, session: Session, first: int) -> Account:
        urls = [replica.url for replica in cluster.replicas]
        place = first % REPLICAS
        client = Client(
            tuple(urls[place:] + urls[:place]), retry_secs=60, connect=cluster.network.connect,
            sources=cluster.sources, jitter=self.rng.random, session=session,
        )  # fmt: skip
        return Account(name, client)

    def _return(self, account: Account, refused: ApiError) -> None:
        if wrong := account.return_to(self.world, refused, self.now()):
            self._violation(wrong)
            raise refused

    # --- actions of users ----------------------------------------------------------------------------

    async def _read(self, person: Person) -> None:
        slow = self.rng.random() < 0.15
        person.subscription = subscription = person.account.client.subscribe(person.channel_id, since=0)
        try:
            while True:
                event = await self._next(subscription, person.account)
                if isinstance(event, Delivered):
                    text = decode(event.payload).text
                    person.received.append((event.sequence, text))
                    self._note("got", person.number, event.sequence, text)
                    if slow and self.rng.random() < 0.3:
                        await anyio.sleep(self.rng.uniform(0, 2))
                else:
                    person.reconnects += 1
        except StreamEnded as ended:
            self._violation(f"client {person.number}: its stream ended with {ended}")

    async def _next(self, subscription: Subscription, account: Account) -> StreamEvent:
        while True:
            try:
                return await subscription.next_event()
            except ApiError as refused:
                self._return(account, refused)

    async def _post(self, person: Person) -> None:
        for number in range(POSTS):
            await anyio.sleep(0.9 * TROUBLE_SECS / POSTS * (1 - self.spread * self.rng.random()))
            text = f"{person.number}.{number}" + self.rng.choice(self.sizes)
            channel = self.rng.choice(self.channels)
            person.attempted.add(text)
            try:
                posted = await person.account.client.post(channel, text)
            except (ApiError, OutcomeUnknown) as failure:
                self._note("unanswered", person.number, 0, type(failure).__name__)
                if isinstance(failure, ApiError) and failure.status == 401:
                    self._return(person.account, failure)
                continue
            person.acknowledged[channel, posted.sequence] = text
            self._note("acknowledged", person.number, posted.sequence, text)
        self.posters -= 1

    async def _watch(self, person: Person, watch: Watch) -> None:
        stream = person.account.client._subscription(StreamClient(None, None, self.rng.random))
        while True:
            match await self._next(stream, person.account):
                case Opened():
                    watch.opened(self.world.tables.heads(self.channels))
                case Disconnected():
                    watch.cut()
                case Notified() as notification:
                    if wrong := watch.take(notification):
                        self._violation(f"client {person.number}: {wrong}")

    async def _delete(self, by: Account, path: str) -> None:
        """Remove a user, or revoke a session, at a random time."""
        await anyio.sleep(self.rng.uniform(0, TROUBLE_SECS))
        while True:
            try:
                await by.client.request("DELETE", path)
            except OutcomeUnknown:
                continue
            except ApiError as refused:
                if refused.status == 404:
                    return  # an earlier attempt has done it
                if refused.status != 503:
                    self._return(by, refused)
                await anyio.sleep(0.5)
            else:
                return

    async def _follow_to_the_end(self, who: Account, channel_id: str | None, codes: set[int], name: str) -> None:
        stream = who.client._subscription(StreamClient(channel_id, None, self.rng.random))
        while name in self.watched:
            try:
                await stream.next_event()
            except (StreamEnded, ApiError) as ended:
                code = ended.code if isinstance(ended, StreamEnded) else ended.status
                if code in codes:
                    self.watched.discard(name)
                elif isinstance(ended, ApiError):
                    self._return(who, ended)
                else:
                    self._violation(f"{name} ended with {ended}")
                    return

    # --- faults --------------------------------------------------------------------------------------

    async def _trouble(self, cluster: Cluster) -> None:
        rng = self.rng
        deeds: tuple[Callable[[], None], ...] = (
            lambda: self._crash(cluster, rng.choice(cluster.replicas)),
            lambda: self._crash_at(cluster, rng.choice(cluster.replicas)),
            lambda: rng.choice(cluster.replicas).bus.cut(rng.uniform(0.2, 5)),
            lambda: self._cut_nats(cluster),
            lambda: self._database_down(cluster, rng.uniform(0.2, 3)),
            lambda: cluster.network.cut(rng.choice(cluster.replicas).port, rng.random()),
            lambda: cluster.tasks.start_soon(rng.choice(cluster.replicas).roll),
        )
        count = rng.randrange(9)
        for _ in range(count):
            await anyio.sleep(rng.uniform(0, 2 * TROUBLE_SECS / count))
            if cluster.loop.time() > TROUBLE_SECS:
                break
            deed = rng.randrange(len(deeds))
            self._note("trouble", deed, 0, "")
            deeds[deed]()

    def _crash(self, cluster: Cluster, replica: Replica) -> None:
        self.report.crashes += 1
        replica.crash()
        cluster.loop.call_later(self.rng.uniform(0.3, 3), replica.start)

    def _crash_at(self, cluster: Cluster, replica: Replica) -> None:
        if replica.alive:
            self.report.crashes += 1
            replica.crash_at(self.rng.randrange(1, 12), self.rng.choice(("before", "after")))

    def _cut_nats(self, cluster: Cluster) -> None:
        for replica in cluster.replicas:
            replica.bus.cut(self.rng.uniform(0.2, 5))

    def _database_down(self, cluster: Cluster, secs: float) -> None:
        cluster.database.down = True
        cluster.loop.call_later(secs, setattr, cluster.database, "down", False)

    # --- the run -------------------------------------------------------------------------------------

    async def main(self, loop: SimLoop) -> None:
        rng = self.rng
        self.now = loop.time
        loop.set_exception_handler(lambda _, context: self._violation(f"escaped: {context.get('exception')!r}"))
        faults = Faults(
            abort_share=rng.choice((0.0, 0.02, 0.1)), unknown_share=rng.choice((0.0, 0.02, 0.1)),
            drop=rng.choice((0.0, 0.05, 0.5)), drop_control=rng.choice((0.0, 0.5, 1.0)),
            repeat=rng.choice((0.0, 0.2)), late=rng.choice((0.0, 0.1, 0.5)),
        )  # fmt: skip
        async with anyio.create_task_group() as tasks:
            cluster = Cluster(loop, rng, self.world.tables, faults, tasks, self.plant, token_secs=self.token_secs)
            cluster.replicas += [Replica(cluster, 8_000 + number) for number in range(REPLICAS)]
            self._populate(cluster)
            for replica in cluster.replicas:
                replica.start()
            await _until(lambda: len(cluster.network.listeners) == REPLICAS)
            self.posters = len(self.people)
            for person in self.people:
                tasks.start_soon(self._read, person)
                tasks.start_soon(self._post, person)
                if person.watch is not None:
                    tasks.start_soon(self._watch, person, person.watch)
            tasks.start_soon(self._sample, cluster)
            for act, arguments in self.departures:
                tasks.start_soon(act, *arguments)
            await self._trouble(cluster)
            await anyio.sleep(max(0.0, TROUBLE_SECS - loop.time()))
            cluster.heal()
            for replica in cluster.replicas:
                replica.start()
            with anyio.move_on_after(SETTLE_SECS):
                await _until(lambda: not self.posters and not self.watched and self._all_caught_up())
            if self.posters:
                self._violation(f"{self.posters} posters still wait: an operation hangs")
            for name in sorted(self.watched):
                self._violation(f"a stream that was to end is still open: {name}")
            self._check()
            with anyio.move_on_after(RESET_PATIENCE_SECS):
                await _until(lambda: not cluster.network.broken())
            if broken := cluster.network.broken():
                self._violation(f"{broken} connections outlive their reset")
            tasks.cancel_scope.cancel()

    def _all_caught_up(self) -> bool:
        heads = self.world.tables.heads(self.channels)
        return all(
            len(person.received) >= heads[person.channel_id] and (person.watch is None or person.watch.has_all(heads))
            for person in self.people
        )

    async def _sample(self, cluster: Cluster) -> None:
        """Check that queue bounds hold at any moment."""
        while True:
            await anyio.sleep(SAMPLE_SECS)
            for replica in cluster.replicas:
                if not replica.alive:
                    continue
                for stream, depth in replica.server.replica.replica.hub.depths(100):
                    if depth > QUEUE_CAPACITY:
                        self._violation(f"stream {stream} is {depth} deep")
                storage = replica.storage
                if storage.stats().queue_events > MAX_QUEUE_EVENTS or storage.queue_bytes > MAX_QUEUE_BYTES:
                    self._violation("the commit queues are over their bounds")

    # --- final checks --------------------------------------------------------------------------------

    def _check(self) -> None:
        log = {channel: self._log(channel) for channel in self.channels}
        heads = self.world.tables.heads(self.channels)
        everything = [text for texts in log.values() for text in texts]
        if len(everything) != len(set(everything)):
            self._violation("a post is in the log twice")
        for person in self.people:
            self.report.reconnects += person.reconnects
            self.report.posts += len(person.acknowledged)
            self.report.deliveries += len(person.received)
            for (channel, sequence), text in person.acknowledged.items():
                if log[channel][sequence - 1 : sequence] != [text]:
                    self._violation(f"client {person.number}: acknowledged {text[:8]} is not at {sequence}")
            wanted = list(enumerate(log[person.channel_id], start=1))
            if person.received != wanted:
                self._violation(
                    f"client {person.number}: has {[n for n, _ in person.received]}, the log has {len(wanted)} events"
                )
            if person.watch is not None and not person.watch.has_all(heads):
                self._violation(f"client {person.number}: was not told of everything")
            state = person.subscription.state if person.subscription is not None else None
            if state is not None and (state.gaps or state.repeats):
                self._violation(f"client {person.number}: was sent {state.gaps} holes and {state.repeats} repeats")

    def _log(self, channel: str) -> list[str]:
        texts: list[str] = []
        while True:
            page = self.world.tables.perform(ReadEvents(log_id=channel, after=len(texts), limit=MAX_PAGE_EVENTS))
            if not page:
                return texts
            for event in page:
                if event.sequence != len(texts) + 1:
                    self._violation(f"the log of {channel} has a hole before {event.sequence}")
                texts.append(decode(b'{"sequence":1,"channel_id":"","event":%b}' % event.wire).text)

    def _violation(self, text: str) -> None:
        self.report.violations.append(text)

    def _note(self, kind: str, who: int, sequence: int, text: str) -> None:
        self._trace.update(f"{kind} {who} {sequence} {text}\n".encode())

    def finish(self) -> Report:
        self.report.digest = self._trace.hexdigest()
        return self.report


def decode(payload: str | bytes) -> ChannelEvent:
    return msgspec.json.decode(payload, type=ChannelEvent)


def run_seed(seed: int, plant: Plant = no_plant) -> Report:
    """Run one seed to its end. An error that a replica logs is a violation, too."""
    run = Run(seed, plant)
    violations = run.report.violations

    def heard(logger: object, method: str, record: structlog.typing.EventDict) -> str:
        violations.append(f"{method}: {record.get('event')} {sys.exc_info()[1]!r}")
        raise structlog.DropEvent

    before, configured = random.getstate(), structlog.get_config()
    random.seed(seed)  # the jitter of the runtime
    structlog.configure(
        processors=[heard],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        cache_logger_on_first_use=False,
    )
    try:
        simulated.run(run.main)
    except Stalled:
        violations.append("everybody waits for somebody: the run has stalled")
    except Exception as failure:  # any exception is a violation
        violations.append(f"a replica fell: {failure!r}")
    finally:
        random.setstate(before)
        structlog.configure(**configured)
    return run.finish()
