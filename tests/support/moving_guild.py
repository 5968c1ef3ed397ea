"""A guild of the server north, with members of south and east, that can be moved; in memory."""

from __future__ import annotations

from typing import Any

import msgspec

from openguild_proto.effects.federation import AskPeer
from openguild_proto.effects.handovers import BeginMove, ListMoves
from openguild_proto.federation.upkeep import UPKEEP_SECS
from openguild_proto.http.message import Response
from openguild_proto.mirror_records import Handover
from openguild_proto.operations.giving_up import give_up
from openguild_proto.operations.handing_over import drive_move
from openguild_proto.operations.taking_over import succeed
from openguild_proto.schemas.between_servers import Delivery
from tests.support.homeservers import Federation, Homeserver
from tests.support.world import decoded

NORTH, SOUTH, EAST = "north.test", "south.test", "east.test"
LOST_SECS = 3_600


class MovingGuild:
    """Alice of north owns the guild; bob of south and carol of east are members."""

    def __init__(self) -> None:
        self.federation = Federation(NORTH, SOUTH, EAST)
        self.north, self.south, self.east = (self.federation[name] for name in (NORTH, SOUTH, EAST))
        for server in self.servers:
            settings = server.service.settings
            policy = msgspec.structs.replace(
                settings.federation,
                take_guilds_from=frozenset({NORTH, SOUTH, EAST} - {server.name}),
                owner_lost_after_secs=LOST_SECS,
            )
            server.service.settings = msgspec.structs.replace(settings, federation=policy)
        self.alice, self.bob, self.carol = self.north.user("alice"), self.south.user("bob"), self.east.user("carol")
        self.guild = self.north.ask_for(self.alice, "POST", "/guilds", {"name": "wandering"})["guild_id"]
        made = self.north.ask_for(self.alice, "POST", f"/guilds/{self.guild}/channels", {"name": "general"})
        self.channel = made["channel_id"]
        self.post(self.north, self.alice, "before")
        self.code = self.north.ask_for(self.alice, "POST", f"/guilds/{self.guild}/invites")["code"]
        for server, token in ((self.south, self.bob), (self.east, self.carol)):
            server.ask_for(token, "POST", f"/invites/{self.code}@{NORTH}/accept")
        self.level(self.north)

    @property
    def servers(self) -> tuple[Homeserver, ...]:
        return self.north, self.south, self.east

    def user_id(self, server: Homeserver, token: str) -> str:
        return str(server.ask_for(token, "GET", "/users/me")["user_id"])

    def post(self, server: Homeserver, token: str, text: str, **more: Any) -> Any:
        return server.ask_for(token, "POST", f"/channels/{self.channel}/messages", {"content": text, **more})

    def try_post(self, server: Homeserver, token: str, text: str, **more: Any) -> Response:
        return server.ask("POST", f"/channels/{self.channel}/messages", {"content": text, **more}, token)

    def texts(self, server: Homeserver, token: str) -> list[str]:
        return [line["content"] for line in server.ask_for(token, "GET", f"/channels/{self.channel}/messages")]

    def origin(self, server: Homeserver, token: str) -> str | None:
        return server.ask_for(token, "GET", f"/guilds/{self.guild}").get("origin")

    def level(self, owner: Homeserver) -> None:
        """Deliver new events to every server that mirrors the guild."""
        for server in self.servers:
            is_cut = frozenset({owner.name, server.name}) in self.federation.cut
            if not is_cut and (server.name, self.guild) in owner.tables._state.peer_guilds:
                owner.deliver(server.name)

    def greet(self, owner: Homeserver, mirror: Homeserver) -> None:
        """Let the owner send an empty delivery a minute later, on which the mirror settles its open requests."""
        self.pass_time(UPKEEP_SECS + 1)
        body = msgspec.json.encode(Delivery())
        answer = owner.perform(AskPeer(mirror.name, "POST", "/federation/v1/deliveries", body))
        assert answer.status == 200, answer.body

    def begin(self, owner: Homeserver, to: str) -> str | None:
        return owner.perform(BeginMove(guild_id=self.guild, to=to, now_ms=owner.wall_ms))

    def drive(self, owner: Homeserver) -> str | None:
        """Drive the move one step. Return its note; None when it is done."""
        moves = owner.perform(ListMoves())
        for move in moves:
            owner.finish(drive_move(owner.context(), move))
        return next((move.note for move in owner.perform(ListMoves())), None)

    def drive_to(self, owner: Homeserver, phase: str) -> str | None:
        """Drive the move until its note contains `phase`, or it is done."""
        for _ in range(20):
            note = self.drive(owner)
            if note is None or phase in note:
                return note
        raise AssertionError(owner.perform(ListMoves()))

    def move(self, owner: Homeserver, to: str) -> None:
        assert self.begin(owner, to) is None
        for _ in range(20):
            self.level(owner)
            if self.drive(owner) is None:
                return
        raise AssertionError(owner.perform(ListMoves()))

    # --- succession ----------------------------------------------------------------------------------

    def statement(self, server: str, token: str | None = None, owner: Homeserver | None = None) -> Handover:
        shown = (owner or self.north).ask_for(
            token or self.alice, "PUT", f"/guilds/{self.guild}/succession", {"server": server}
        )
        return msgspec.convert(shown["statement"], Handover)

    def succeed(self, server: Homeserver, statement: Handover) -> str | None:
        reason = server.finish(succeed(server.context(), statement))
        assert reason is None or isinstance(reason, str)
        return reason

    def give_up(self, server: Homeserver, to: str) -> str | None:
        reason = server.finish(give_up(server.context(), self.guild, to))
        assert reason is None or isinstance(reason, str)
        return reason

    def pass_time(self, secs: float = LOST_SECS + 120) -> None:
        for server in self.servers:
            server.wall_ms += int(secs * 1000)


def error(answer: Response) -> tuple[int, str]:
    return answer.status, decoded(answer)["error"]
