"""Commands of a socket by the operations behind the routes: the same answers, limits and codes as over HTTP."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from openguild_proto.gateway.commands import request_of
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import COMMANDS, AnyCommand, Err, Ok, ServerFrame
from openguild_proto.http.message import Request, Response
from openguild_proto.operations.router import Matched
from openguild_proto.operations.routes import match
from tests.proto.gateway.frames import FRAMES
from tests.support.gateway import Replica, Socket
from tests.support.world import World, decoded


class Talk:
    """A user's gateway socket on a server of memory tables, with a guild and a channel."""

    def __init__(self, encoding: Encoding = Encoding.JSON) -> None:
        self.world = World()
        self.token = self.world.user("alice")
        guild = decoded(self.world.ask("POST", "/guilds", {"name": "g"}, self.token))["guild_id"]
        path = f"/guilds/{guild}/channels"
        self.channel_id = decoded(self.world.ask("POST", path, {"name": "c"}, self.token))["channel_id"]
        self.replica = Replica(encoding=encoding)
        self.replica.run = self.run
        self.socket = Socket(self.replica, token="good")
        self.socket.heard()

    def run(self, request: Request) -> Response:
        headers = tuple(
            (name, f"Bearer {self.token}" if name == "authorization" else value) for name, value in request.headers
        )
        answer = self.world.run(msgspec.structs.replace(request, headers=headers))
        assert isinstance(answer, Response)
        return answer

    def command(self, kind: str, **members: Any) -> ServerFrame:
        self.socket.tell({"type": kind, "ref": 1, "channel_id": self.channel_id, **members})
        (answer,) = self.socket.heard()
        return answer


def result_of(answer: ServerFrame) -> Any:
    assert isinstance(answer, Ok), answer
    return answer.result


def code_of(answer: ServerFrame) -> str:
    assert isinstance(answer, Err), answer
    return answer.code


@pytest.mark.parametrize("encoding", Encoding)
def test_the_life_of_a_message(encoding: Encoding) -> None:
    talk = Talk(encoding)
    posted = result_of(talk.command("post", content="hi", key="k1"))
    assert result_of(talk.command("post", content="hi", key="k1")) == posted, "done once"
    assert code_of(talk.command("post", content="ho", key="k1")) == "nonce_reused"
    event_id = posted["event_id"]
    assert result_of(talk.command("edit", event_id=event_id, content="hi!"))["message_id"] == event_id
    assert result_of(talk.command("react", event_id=event_id, emoji="👍"))["sequence"] == 3
    reply = result_of(talk.command("post", content="re", reply_to=event_id))
    assert result_of(talk.command("read", sequence=reply["sequence"]))["last_read_sequence"] == 4
    assert result_of(talk.command("redact", event_id=event_id, reason="a mistake & more"))["sequence"] == 5
    assert code_of(talk.command("edit", event_id=event_id, content="x")) == "message_redacted"
    for shown in ({}, {"preview": "I am wri"}):
        assert result_of(talk.command("typing", **shown)) is None


def test_codes_are_those_of_http() -> None:
    talk = Talk()
    empty = talk.command("post", content="  ")
    over_http = talk.world.ask("POST", f"/channels/{talk.channel_id}/messages", {"content": "  "}, talk.token)
    assert isinstance(empty, Err)
    wanted = decoded(over_http)
    assert (empty.code, empty.message) == (wanted["error"], wanted["message"])
    assert [msgspec.to_builtins(problem) for problem in empty.details] == wanted["details"]
    assert code_of(talk.command("edit", event_id="$abc", content="x")) == "not_found"
    assert code_of(talk.command("post", content="x", channel_id="10000000-0000-4000-8000-000000000000")) == "not_found"


@pytest.mark.parametrize(
    ("kind", "members", "method", "path"),
    [
        *(("read", {"sequence": sequence}, "POST", "read") for sequence in (-1, -(10**30), 0, 10**30, None, 1.5, "1")),
        *(
            ("typing", {"preview": text}, "POST", "typing-preview")
            for text in ("", "x" * 120, "x" * 121, " x" + " " * 120, "\0")
        ),
        *(
            ("react", {"emoji": text}, "POST", "events/{event}/reactions")
            for text in ("", " " * 99, " \N{THUMBS UP SIGN}" + " " * 99, "e\u0301" * 64, "x" * 65, "x" * 257, "a b")
        ),
        *(
            ("redact", {"reason": text}, "DELETE", "events/{event}?reason=" + quote(text))
            for text in ("", " spam" + " " * 999, "x" * 512, "x" * 513, "a\nb")
        ),
        *(("post", {"content": text}, "POST", "messages") for text in ("", " x" + " " * 9_000, "x" * 4_001, "\0")),
        ("edit", {"content": "x" * 4_001}, "PATCH", "events/{event}"),
        *(
            ("post", {"content": "<@&admin>", "allowed_mentions": allowed}, "POST", "messages")
            for allowed in ({}, {"users": ["x"]}, {"roles": ["x"]}, {"roles": "admin"}, {"everyone": 1})
        ),
        *(("post", {"content": "x", "reply_to": target}, "POST", "messages") for target in ("$abc", "abc", "", None)),
    ],
)
def test_what_a_member_may_be_is_as_over_http(kind: str, members: dict[str, Any], method: str, path: str) -> None:
    talk = Talk()
    one, other = (result_of(talk.command("post", content=text))["event_id"] for text in ("one", "other"))
    body = None if method == "DELETE" else members
    over_http = talk.world.ask(method, f"/channels/{talk.channel_id}/{path.format(event=one)}", body, talk.token)
    target = {} if kind in {"post", "read", "typing"} else {"event_id": other}
    answer = talk.command(kind, **target, **members)
    if over_http.status < 400:
        assert isinstance(answer, Ok)
        return
    wanted = decoded(over_http)
    assert isinstance(answer, Err)
    assert (answer.code, [problem.field for problem in answer.details]) == (
        wanted["error"],
        [problem["field"] for problem in wanted.get("details", [])],
    )


def test_limits_are_those_of_http() -> None:
    talk = Talk()
    talk.world.service.user_messages.change(2, 60)
    codes = [type(talk.command("post", content="x")).__name__ for _ in range(3)]
    assert codes == ["Ok", "Ok", "Err"]
    limited = talk.command("post", content="x")
    assert isinstance(limited, Err)
    assert limited.code == "message_rate_limit"
    assert limited.retry_after_ms is not None
    assert 0 < limited.retry_after_ms <= 61_000


def test_every_command_has_its_route() -> None:
    tried = set()
    for frame in FRAMES:
        kind = {command.__struct_config__.tag: command for command in COMMANDS}.get(frame["type"])
        if kind is not None:
            command: AnyCommand = msgspec.convert(frame, kind)
            request = request_of(command, token="t", request_id="r", client_address="")
            assert isinstance(match(request.method, request.path), Matched), frame["type"]
            tried.add(kind)
    assert tried == set(COMMANDS)
