"""One operation driven step by step, with the effects that it requests. No server, no store, no loop.

`python docs/examples/operation_by_hand.py` posts a message; the answers below are made up.
"""

from __future__ import annotations

import itertools
from typing import Any

from openguild_proto import Request, Response
from openguild_proto.canonical.keys import KeyRing
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects import Effect
from openguild_proto.effects.accounts import FindSession
from openguild_proto.effects.channels import Appended, AppendEvent
from openguild_proto.operations.context import Context, Service, Settings
from openguild_proto.operations.dispatch import dispatch
from openguild_proto.records import SessionRecord, StoredEvent
from openguild_proto.sessions.tokens import Claims, TokenAuthority

NOW_MS = 1_760_304_866_000  # time is an argument, and so is randomness
USER, SESSION = "ec7c5138-ee1a-4112-95ef-e53514b670c2", "00000000-0000-4000-8000-000000000001"
CHANNEL = "3b7f3e93-7c9c-47f5-91d3-cbf09dc5a8f6"

numbers = itertools.count(1)
service = Service.create(Settings(server_name="example.org"), TokenAuthority(KeyRing(SigningKey(bytes(32)))))
context = Context(now=0.0, wall_ms=NOW_MS, entropy=lambda count: next(numbers).to_bytes(count, "big"), service=service)


def answer(effect: Effect[Any]) -> Any:
    """Return the answer that PostgreSQL would give."""
    match effect:
        case FindSession(session_id=session_id):
            return SessionRecord(session_id, USER, "alice", revoked=False)
        case AppendEvent(channel_id=channel_id, event_id=event_id, wire=wire):
            return Appended(StoredEvent(channel_id, 42, event_id, wire, NOW_MS))
        case _:
            raise AssertionError(f"not expected: {effect}")


def post(text: str) -> Response:
    """Run POST /channels/{channel_id}/messages, and print each effect as it is requested."""
    token = service.tokens.issue(Claims(SESSION, USER, "alice", NOW_MS * 1000, (NOW_MS + 60_000) * 1000))
    headers = (("authorization", f"Bearer {token}"), ("content-type", "application/json"))
    body = b'{"content": "%b"}' % text.encode()
    request = Request("POST", f"/channels/{CHANNEL}/messages", "", headers, body, request_id="by-hand")
    operation = dispatch(context, request)
    try:
        effect = next(operation)
        while True:
            print("it asks for", type(effect).__name__)
            effect = operation.send(answer(effect))
    except StopIteration as end:
        response: Response = end.value
        return response


if __name__ == "__main__":
    done = post("hello")
    print(done.status, done.body.decode())
