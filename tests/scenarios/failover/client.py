"""An author with a keep-alive connection that repeats a post with its nonce until it is answered with 200."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

RETRY_SECS = 0.05
ANSWER_LIMIT_SECS = 15.0


class Author(NamedTuple):
    """A user and their own channel."""

    token: str
    channel: str


class Connection:
    """A keep-alive connection to one of the servers; when it ends, the next one goes to the next server."""

    def __init__(self, ports: Sequence[int], first: int) -> None:
        self._ports = ports
        self._next = first
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, token: str, body: Any = None) -> tuple[int, Any]:
        """Return status and body; status 0 if the connection ended without an answer."""
        try:
            async with asyncio.timeout(ANSWER_LIMIT_SECS):
                return await self._ask(method, path, token, body)
        except (OSError, EOFError, TimeoutError):
            self.close()
            return 0, None

    async def _ask(self, method: str, path: str, token: str, body: Any) -> tuple[int, Any]:
        if self._streams is None:
            port = self._ports[self._next % len(self._ports)]
            self._next += 1
            self._streams = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = self._streams
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        if data:
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        writer.write(f"{head}\r\n".encode() + data)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        content = await reader.readexactly(length)
        if b"connection: close" in answer:
            self.close()
        return int(answer.split(b" ", 2)[1]), json.loads(content) if content else None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Poster:
    """Posts numbered messages at a rate. `acknowledged`: their texts, with the times when each post began and was answered."""

    def __init__(self, author: Author, number: int, ports: Sequence[int]) -> None:
        self.author = author
        self._number = number
        self._connection = Connection(ports, number)
        self.acknowledged: dict[str, tuple[float, float]] = {}
        self.refused: set[int] = set()

    async def run(self, every_secs: float, until: asyncio.Event) -> None:
        """Post until told to stop; the last post, too, is repeated until it is acknowledged."""
        due = time.monotonic() + every_secs * (self._number % 64) / 64
        while not until.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + every_secs, time.monotonic() - 1)
            await self.post(f"{self._number}-{len(self.acknowledged)}")
        self._connection.close()

    async def post(self, text: str) -> None:
        path, body = f"/channels/{self.author.channel}/messages", {"content": text, "nonce": text}
        while True:
            began = time.monotonic()
            status, _ = await self._connection.ask("POST", path, self.author.token, body)
            if status == 200:
                self.acknowledged[text] = began, time.monotonic()
                return
            self.refused.add(status)
            await asyncio.sleep(RETRY_SECS)


class Reader:
    """Posts at one server and reads the newest page at another one, which must include the post."""

    def __init__(self, author: Author, number: int, ports: Sequence[int]) -> None:
        self.author = author
        self._number = number
        self._writes, self._reads = Connection(ports[:1], 0), Connection(ports[-1:], 0)
        self.reads = self.missed = 0

    async def run(self, reads: int) -> None:
        """Post and read. Every third read is of a folded page, and every third one a sync from before the post."""
        channel, token = self.author.channel, self.author.token
        for turn in range(reads):
            text = f"own {self._number}-{turn}"
            status, posted = await self._writes.ask("POST", f"/channels/{channel}/messages", token, {"content": text})
            assert status == 200, status
            sequence = posted["sequence"]
            match turn % 3:
                case 0:
                    asked: tuple[Any, ...] = ("GET", f"/channels/{channel}/events?limit=1", token)
                case 1:
                    asked = "GET", f"/channels/{channel}/messages?limit=1", token
                case _:
                    place = {"log": f"channel:{channel}", "epoch": 1, "sequence": sequence - 1}
                    asked = "POST", "/sync", token, {"positions": [place]}
            status, found = await self._reads.ask(*asked)
            assert status == 200, status
            self.reads += 1
            self.missed += text not in json.dumps(found)
        self._writes.close()
        self._reads.close()
