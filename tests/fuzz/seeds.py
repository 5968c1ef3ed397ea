"""The first corpus: one file for each thing that a target should know from the start. `python -m tests.fuzz.seeds`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from openguild_proto.operations import logs, streams
from openguild_proto.operations.routes import ROUTES
from openguild_proto.schemas.accounts import Credentials
from openguild_proto.schemas.guilds import NewInvite
from openguild_proto.schemas.messages import MarkReadBody, PostMessage
from tests.fuzz.targets import GOOD
from tests.proto.gateway.frames import FRAMES, SERVER_FRAMES
from tests.proto.http.cases import CASES
from tests.support.wire import HANDSHAKE, HEAD, masked

CORPUS = Path(__file__).with_name("corpus")
BODIES = (
    b'{"name":"x"}',
    b'{"content":"x","nonce":"n"}',
    b'{"role":"admin"}',
    b'{"max_uses":1,"expires_in_secs":9}',
    b'{"sequence":1}',
)
NUMBERS = (2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400)
SURROGATES = b'{"\\ud800":1,"\\ud800":2,"name":"\\udfff"}'
LARGE = (
    b"[]",
    b"{},",
    b'[[]]"' + b'\\"' * 8,
    b'{"content":"' + b"\\ud83d\\ude00" * 8 + b'"}',
)  # repeated, to about 32 or 64 KiB


def seeds() -> Iterator[tuple[str, bytes]]:
    for case in CASES:
        yield "connection", b"\x07" + case.data[:4_096]
    yield "connection", b"\x01" + HANDSHAKE + masked(0x81, b"hello") + masked(0x88, b"\x03\xe8bye")
    yield "connection", b"\x3f" + HEAD + b"\r\n" + HEAD + b"\r\n"
    for first in (0x81, 0x82, 0x01, 0x80, 0x00, 0x88, 0x89, 0x8A, 0xC1, 0x83):
        yield "frames", bytes([1, 3, first]) + b"payload\n" + bytes([0x88]) + b"\x03\xe8"
        yield "frames", bytes([0, 5]) + masked(first, "grüße".encode())
    for number, route in enumerate(ROUTES):
        target = route.template.replace("{guild_id}", "$G").replace("{channel_id}", "$C").replace("{user_id}", "$G")
        method = {"GET": "h", "POST": "a", "PUT": "b", "PATCH": "c", "DELETE": "d"}[route.method]
        for body in BODIES if route.body is not None else (b"",):
            yield "requests", f"{method} {target}\nx: y\n\n".encode() + body
        if route.body in {Credentials, PostMessage, MarkReadBody}:
            yield "requests", f"{method} {target}\n\n".encode() + SURROGATES
            for unit in LARGE:
                for size in "lL":
                    yield "requests", f"{method}{size} {target}\n\n".encode() + unit
        for figure in NUMBERS:
            if route.body in {MarkReadBody, NewInvite}:
                members = f'{{"sequence":{figure},"max_uses":{figure},"expires_in_secs":{figure}}}'
                yield "requests", f"{method} {target}\n\n{members}".encode()
            elif route.operation is logs.list_events:
                for name in ("since", "before", "limit"):
                    yield "requests", f"{method} {target}?{name}={figure}\n\n".encode()
            elif route.operation is streams.open_channel_stream:
                yield "requests", f"{method}u {target}?since={figure}\n\n".encode()
        if number % 5 == 0:
            yield "requests", f"{method} {target}?limit=5&since=1&before=2\n\n".encode()
        yield "requests", f"{method}u /client/v1{target}?since=0\n\n".encode()
    yield "tokens", GOOD.encode()
    yield "tokens", GOOD.replace("e", "f", 1).encode()
    yield "tokens", b"5H-TegJkYpU8vHsuvZTVqQ"
    yield (
        "events",
        (
            b'{"schema_version":1,"event_id":"","origin_server":"a","room_id":"r","event_type":"message","sender":"s","origin_ts":1,'
            b'"content":{"b":[1,-2,true,null,"\\u00e9\\n"],"a":{}},"prev_events":["$a"],"auth_events":[],"signatures":{}}'
        ),
    )
    yield (
        "peers",
        b'{"type":"control","record":{"sequence":1,"kind":"channel_deleted","guild_id":null,"channel_id":"c"}}',
    )
    yield "peers", b"\x05HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    yield (
        "peers",
        b"\x05HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n\x81\x02hi",
    )
    for frame in FRAMES:
        yield "gateway", b"\x00" + msgspec.json.encode(frame)
        yield "gateway", b"\x03" + msgspec.msgpack.encode(frame)
    yield "gateway", b"\x00" + b"\n".join(map(msgspec.json.encode, FRAMES))
    for head in (b"\x04", b"\x06"):
        yield "gateway", head + b"\n".join(map(msgspec.json.encode, SERVER_FRAMES))
    yield "gateway", b"\x07" + b"\n".join(map(msgspec.msgpack.encode, SERVER_FRAMES))


def main() -> None:
    for target, data in seeds():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    main()
