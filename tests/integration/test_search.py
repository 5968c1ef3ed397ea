"""Search over HTTP, on a real server with its index (PROTOCOL 7.11)."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import Chat
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio
TEXTS = (
    "Grüße aus Köln",
    "東京都に住む",
    "한국어를 배워요",
    "سَلَامٌ عليكم",
    "well done 👍🏽",
    "see https://example.com/a",
)


async def test_messages_are_found_at_once_and_when_they_are_indexed(
    database_url: str, nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    server = ServerProcess(tmp_path, DATABASE_URL=database_url, NATS__URL=nats_server.url)
    with server.start():
        chat = Chat(server.base_url)
        alice, stranger = chat.user(), chat.user()
        channel = alice.channel(alice.guild())
        posted = {text: alice.post(f"/channels/{channel}/messages", {"content": text}).json() for text in TEXTS}

        def search() -> None:
            for query, text in zip(("GRÜSSE", "京都", "국어", "سلام", "👍", "example.com"), TEXTS, strict=True):
                (line,) = alice.get("/search/messages", params={"q": query}).json()
                assert (line["snippet"], line["event_id"]) == (text, posted[text]["event_id"])
                assert stranger.get("/search/messages", params={"q": query, "in": channel}).json() == []
            first = {"from": alice.user_id, "in": channel, "limit": 4}
            page = alice.get("/search/messages", params=first)
            rest = alice.get("/search/messages", params={**first, "cursor": page.headers["x-next-cursor"]})
            assert "x-next-cursor" not in rest.headers
            assert {line["snippet"] for line in (*page.json(), *rest.json())} == set(TEXTS)

        search()
        database = await asyncpg.connect(database_url)

        async def are_indexed() -> bool:
            return bool(await database.fetchval("SELECT count(*) = $1 FROM search_documents", len(TEXTS)))

        await eventually(are_indexed)
        await database.close()
        search()
        chat.close()
        assert server.stop() == 0, server.tail()
