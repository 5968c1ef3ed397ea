"""The gateway sockets of a replica: their users, the logs that they follow, and changes of rights.

`GatewayServer` implements the protocol of one socket. The socket's driver carries out its actions and passes `Subscribe`,
`Unsubscribe` and `ReadPage` to `Gateway.do`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from openguild_proto.effects.accounts import FindSession
from openguild_proto.effects.base import Overloaded, StorageUnavailable
from openguild_proto.errors import ErrorCode
from openguild_proto.gateway.actions import AnyAction as SocketAction
from openguild_proto.gateway.actions import ReadPage, Subscribe, Unsubscribe
from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.gateway.feeds import Feed, Feeds, Follower
from openguild_proto.gateway.frames import GoneCode
from openguild_proto.gateway.server import GatewayServer
from openguild_proto.limits import MAX_CHANNELS_AT_ONCE, MAX_SUBS_AT_ONCE
from openguild_proto.log.log_names import log_id_in
from openguild_proto.operations.consequences import CloseStreams
from openguild_proto.policy.clock_watch import deadline_of
from openguild_proto.policy.drain_waves import plan_slots
from openguild_proto.procedures import Procedure
from openguild_proto.replica import gateway_rights as rights
from openguild_proto.replica.actions import FlushFeed, Urgency
from openguild_proto.replica.channels import Channels
from openguild_proto.replica.feed_pages import FeedPages
from openguild_proto.replica.gateway_socket import GatewaySocket
from openguild_proto.replica.outputs import Outputs
from openguild_proto.replica.presence import Presence
from openguild_proto.replica.redactions import Redaction, event_in, redacted_event
from openguild_proto.replica.streams import Streams
from openguild_proto.replica.turns import Turns
from openguild_proto.sessions.tokens import Claims, TokenAuthority


class Gateway:
    """All gateway sockets of a process. `streams` counts changes of rights; `feeds` are shared by all sockets."""

    def __init__(
        self,
        feeds: Feeds,
        outputs: Outputs,
        channels: Channels,
        streams: Streams,
        presence: Presence | None,
        tokens: TokenAuthority,
    ) -> None:
        self.feeds = feeds
        self.pages = FeedPages(outputs)
        self._outputs = outputs
        self._channels = channels
        self._streams = streams
        self._presence = presence
        self._tokens = tokens
        self._sockets: dict[GatewaySocket, str | None] = {}  # value: the session that counts as present
        self._following: dict[Follower, GatewaySocket] = {}  # by the follower in the feeds
        self._of_user: dict[str, dict[GatewaySocket, None]] = {}
        self._doubted: dict[GatewaySocket, None] = {}  # whose token may have been checked before `recheck_all`
        self._names: dict[str, str] = {}  # log id -> name, of logs with feeds
        self._turns = Turns(outputs.procedures, MAX_SUBS_AT_ONCE)
        self._to_flush: set[str] = set()  # keys of the FlushFeed actions that have not been taken

    # --- coming and going ----------------------------------------------------------------------------

    def opened(self, socket: GatewaySocket) -> None:
        """Add a socket whose upgrade was accepted."""
        self._sockets[socket] = None
        self._following[socket.server.subscriptions] = socket

    def authenticated(self, socket: GatewaySocket) -> None:
        """Handle that the socket's state machine has accepted a token: the first one, or a newer one of the same user."""
        claims = socket.claims
        if claims is None or socket not in self._sockets:
            return
        self._of_user.setdefault(claims.user_id, {})[socket] = None
        self._set_present(socket, claims.user_id, claims.session_id)
        self._end_if_revoked(socket, claims)
        if socket in self._doubted:
            self._outputs.procedures.start(self._recheck_session(socket), "checking a gateway socket's session again")

    def _end_if_revoked(self, socket: GatewaySocket, claims: Claims) -> None:
        """Close the socket if its session or key was revoked while the token was checked."""
        if self._tokens.is_revoked(claims.session_id):
            self._close(socket, GatewayClose.SESSION_ENDED)
        elif not self._tokens.trusts(claims.verified_by):
            self._close(socket, GatewayClose.KEY_WITHDRAWN)

    def _set_present(self, socket: GatewaySocket, user_id: str, session_id: str | None) -> None:
        former, self._sockets[socket] = self._sockets[socket], session_id
        if self._presence is not None and former != session_id:
            if session_id is not None:
                self._presence.opened(user_id, session_id, former)
            if former is not None:
                self._presence.closed(user_id, former)

    def left(self, socket: GatewaySocket) -> None:
        """Remove a closed socket; then carry out its machine's remaining actions. Idempotent."""
        if socket not in self._sockets:
            return
        claims = socket.claims
        if claims is not None:
            self._set_present(socket, claims.user_id, None)
            sockets = self._of_user[claims.user_id]
            sockets.pop(socket, None)
            if not sockets:
                del self._of_user[claims.user_id]
        del self._sockets[socket], self._following[socket.server.subscriptions]
        self._doubted.pop(socket, None)
        socket.server.left()

    def _close(self, socket: GatewaySocket, code: GatewayClose) -> None:
        socket.server.close(code)
        socket.wake()

    # --- following -----------------------------------------------------------------------------------

    def do(self, socket: GatewaySocket, action: SocketAction) -> None:
        """Carry out one of the socket's actions on logs."""
        match action:
            case Subscribe(number=number, logs=logs):
                self._outputs.procedures.start(self._subscribe(socket, number, logs), "following logs for a socket")
            case Unsubscribe(feed=feed):
                self._let_go(feed)
            case ReadPage(feed=feed, after=after, limit=limit):
                self.pages.ask(socket, feed, after, limit)

    def _subscribe(self, socket: GatewaySocket, number: int, names: Sequence[str]) -> Procedure[None]:
        """Subscribe in batches, so that other work gets its turns of the loop."""
        user_id = str(socket.server.user_id)
        for first in range(0, len(names), MAX_CHANNELS_AT_ONCE):
            yield from self._turns.enter(user_id)
            try:
                if socket not in self._sockets:
                    return
                yield from self._subscribe_some(socket, number, names[first : first + MAX_CHANNELS_AT_ONCE], user_id)
            finally:
                self._turns.leave()

    def _subscribe_some(
        self, socket: GatewaySocket, number: int, names: Sequence[str], user_id: str
    ) -> Procedure[None]:
        changes = self._streams.changes
        held: set[str] = set()
        code = ErrorCode.NOT_FOUND
        try:
            held, changes = yield from self._hold(names, user_id)
        except Overloaded:
            code = ErrorCode.OVERLOADED
        except StorageUnavailable:
            code = ErrorCode.DATABASE_UNAVAILABLE
        except Exception as failure:  # the client must be answered, or its next commands wait
            self._outputs.defect("following logs for a socket", failure)
            code = ErrorCode.SERVER_ERROR
        for name in names:
            feed = self._open(name, socket.server) if name in held else None
            if feed is not None:
                socket.server.subscribed(number, feed)
            else:
                socket.server.sub_refused(number, name, code)
        socket.wake()
        if held and changes != self._streams.changes:
            yield from rights.recheck_logs(self._outputs, [socket], names, user_id)

    def _hold(self, names: Sequence[str], user_id: str) -> Procedure[tuple[set[str], int]]:
        """Follow the logs that the user may read, at least up to where the right was read.

        If rights change meanwhile, they are read once more, but no more often: they may change all the time. Return the names
        of the held logs, and the count of changes up to which rights are checked. Raises StorageUnavailable, with nothing
        held.
        """
        changes = self._streams.changes
        readable = yield from rights.readable(names, user_id)
        held = yield from self._channels.follow([access.place.log_id for access in readable.values()])
        readable = {name: access for name, access in readable.items() if access.place.log_id in held}
        try:
            for access in readable.values():
                yield from self._channels.reach_epoch(access.place.log_id, access.place.epoch, access.base)
                yield from self._channels.catch_up(access.place.log_id, access.place.sequence)
            kept = readable
            if changes != self._streams.changes:
                changes = self._streams.changes
                kept = yield from rights.readable(list(readable), user_id)
        except BaseException:
            self._channels.unfollow(held)
            raise
        self._channels.unfollow([log_id_in(name) for name in readable if name not in kept])
        return set(kept), changes

    def _open(self, name: str, server: GatewayServer) -> Feed | None:
        """Return the feed of a held log. If the log was deleted meanwhile, release it and return None."""
        feed = self.feeds.get(name, server.encoding)
        if feed is None:
            log_id = log_id_in(name)
            channel = self._channels.get(log_id)
            if channel is None:
                self._channels.unfollow([log_id])
                return None
            feed = self.feeds.open(name, channel.epoch or 1, channel.head, server.encoding, channel.base)
            self._names[log_id] = name
        return feed

    def _let_go(self, feed: Feed) -> None:
        if not feed.is_followed:
            self._retire(feed)
        self._channels.unfollow([log_id_in(feed.log)])

    def _retire(self, feed: Feed) -> None:
        self.feeds.retire(feed)
        self.pages.drop(feed)
        if not self.feeds.feeds_of(feed.log):
            self._names.pop(log_id_in(feed.log), None)

    # --- events --------------------------------------------------------------------------------------

    def released(self, log_id: str, sequence: int, payload: bytes) -> bool:
        """Publish the next event of a log, given as its frame payload. Return False if no socket follows it."""
        name = self._names.get(log_id)
        if name is None:
            return False
        for key, fills in self.feeds.publish(name, sequence, event_in(payload)):
            if fills:
                urgency = Urgency.NOW if self.feeds.hub.stretch(key) else Urgency.COMPLETELY
                self._outputs.add(FlushFeed(key, urgency))
            elif key not in self._to_flush:
                self._to_flush.add(key)
                self._outputs.add(FlushFeed(key))
        return True

    def taken(self, flush: FlushFeed) -> None:
        """Record that this action was taken."""
        self._to_flush.discard(flush.key)

    def redacted(self, log_id: str, redaction: Redaction) -> None:
        """Remove a redacted message's content from rings and cached pages."""
        name = self._names.get(log_id)
        if name is not None:
            self.feeds.rewrite(name, partial(redacted_event, redaction=redaction))
            for feed in self.feeds.feeds_of(name):
                self.pages.drop(feed)

    def has_room(self, log_id: str) -> bool:
        """Return whether the log's followers can accept more events now."""
        name = self._names.get(log_id)
        return name is None or all(self.feeds.hub.has_room(feed.key) for feed in self.feeds.feeds_of(name))

    def log_ended(self, log_id: str, code: GoneCode) -> None:
        """Tell the followers of a log that it is gone or was replaced."""
        for feed, followers in self._end(log_id):
            self._each(followers, partial(rights.tell_gone, feeds=[feed], code=code))

    def logs_deleted(self, log_ids: Iterable[str]) -> None:
        """Tell the followers that these logs are deleted, in parts, because each may have very many followers."""

        def tell() -> Iterator[None]:
            for log_id in log_ids:
                for feed, followers in self._end(log_id):
                    for socket in followers:
                        rights.tell_gone(socket, feeds=[feed], code="deleted")
                        yield
                yield

        work = self._outputs.each(tell(), _pass)
        self._outputs.procedures.start(work, "telling sockets that logs are gone")

    def _end(self, log_id: str) -> Iterator[tuple[Feed, list[GatewaySocket]]]:
        """Retire the feeds of a log; yield each with its followers."""
        name = self._names.get(log_id)
        for feed in self.feeds.feeds_of(name) if name is not None else ():
            followers = [self._following[follower] for follower in self.feeds.followers(feed)]
            self._retire(feed)
            yield feed, followers

    # --- rights --------------------------------------------------------------------------------------

    def close_matching(self, ended: CloseStreams) -> None:
        """Handle that sessions have ended, or that a channel or guild was deleted."""
        for log_id in (ended.channel_id, ended.guild_id):
            if log_id is not None:
                self.log_ended(log_id, "deleted")
        if ended.user_id is not None:
            for socket in list(self._of_user.get(ended.user_id, ())):
                if ended.session_ids is None or self._sockets[socket] in ended.session_ids:
                    self._close(socket, GatewayClose.SESSION_ENDED)

    def recheck_user(self, user_id: str) -> None:
        """Check a user's rights again because they may have changed. Holds the user's events until they are known.

        A delayed replica may already have events that were sent after the change (PROTOCOL 8.8.6).
        """
        sockets = list(self._of_user.get(user_id, ()))
        if sockets:
            rights.hold(sockets)
            work = rights.recheck_held(self._outputs, sockets, user_id)
            self._outputs.procedures.start(work, "checking a user's gateway sockets again")

    def recheck_all(self) -> None:
        """Check every socket again, because anything may have changed."""
        self._doubted = dict.fromkeys(self._sockets)
        self._outputs.procedures.start(self._recheck_everyone(), "checking every gateway socket again")

    def _recheck_everyone(self) -> Procedure[None]:
        for user_id in list(self._of_user):
            for socket in list(self._of_user.get(user_id, ())):
                yield from self._recheck_session(socket)
            yield from rights.recheck(self._outputs, list(self._of_user.get(user_id, ())), user_id)

    def _recheck_session(self, socket: GatewaySocket) -> Procedure[None]:
        session_id = self._sockets.get(socket)
        if session_id is None:  # the socket has left
            return
        try:
            session = yield from FindSession(session_id=session_id)
        except Exception as failure:  # an outage or a bug: it must not stop the checks of other sockets
            if not isinstance(failure, StorageUnavailable):
                self._outputs.defect("checking a gateway socket's session again", failure)
            self._close(socket, GatewayClose.TRY_LATER)
            return
        if (session is None or session.revoked) and self._sockets.get(socket) == session_id:
            self._close(socket, GatewayClose.SESSION_ENDED)

    def keys_replaced(self) -> None:
        """Close the sockets whose token was signed by a key that is no longer in the key ring."""

        def end(socket: GatewaySocket) -> None:
            if socket.claims is not None and not self._tokens.trusts(socket.claims.verified_by):
                self._close(socket, GatewayClose.KEY_WITHDRAWN)

        self._each(self._sockets, end)

    def clock_moved(self, wall: float) -> None:
        """Move the expiry of all tokens, because the wall clock was set to `wall`, UTC seconds."""

        def expire(socket: GatewaySocket) -> None:
            if socket.claims is not None:
                now = self._outputs.procedures.now
                socket.server.expires_at(deadline_of(socket.claims.expires_at_us // 1_000, now, wall), now)
                socket.wake()

        self._each(self._sockets, expire)

    def drain(self, window_secs: float, jitter: Callable[[], float]) -> None:
        """Disconnect every socket in its own slot, within two thirds of the window."""
        spread_ms = plan_slots(len(self._sockets), window_secs)

        def send_away(socket: GatewaySocket) -> None:
            socket.server.drain(int(jitter() * spread_ms), self._outputs.procedures.now)
            socket.wake()

        self._each(self._sockets, send_away)

    def _each(self, sockets: Iterable[GatewaySocket], do: Callable[[GatewaySocket], None]) -> None:
        self._outputs.add_each(tuple(sockets), do)

    # --- ephemeral data ------------------------------------------------------------------------------

    def offer(self, log: str, kind: str, data: bytes, about: str) -> None:
        """Send ephemeral data about a user to the followers of a log. It may be dropped."""
        if self.feeds.feeds_of(log):
            self._outputs.add_each(self.feeds.ephemeral(log, kind, {about: data}), _pass)

    # --- getters -------------------------------------------------------------------------------------

    def sockets(self) -> list[GatewaySocket]:
        """Return every gateway socket of this replica."""
        return list(self._sockets)

    def close_user(self, user_id: str) -> int:
        """Close a user's sockets on an operator's request; the clients reconnect. Return the number of sockets."""
        sockets = list(self._of_user.get(user_id, ()))
        for socket in sockets:
            self._close(socket, GatewayClose.CLOSED_BY_OPERATOR)
        return len(sockets)


def _pass(_: object) -> None:
    """Do nothing: the iterator has done the work."""
