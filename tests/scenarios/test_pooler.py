"""Two replicas behind PgBouncer in transaction mode: migrate, serve, chat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import receive, texts
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until


def test_replicas_migrate_and_chat_through_a_pooler(
    empty_url: str, pooled: Callable[[str], str], nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    url = pooled(empty_url)
    settings = {"DATABASE_URL": url, "NATS__URL": nats_server.url, "DATABASE__STATEMENT_CACHE_SIZE": 0}
    assert ServerProcess(tmp_path, **settings).run_command("migrate").returncode == 0
    with ServerProcess(tmp_path, **settings).start() as here, ServerProcess(tmp_path, **settings).start() as there:
        poster, listener = here.chat().user(), there.chat().user()
        guild = poster.guild()
        channel = poster.channel(guild)
        listener.join(poster.invite(guild))
        with listener.stream(channel) as stream:
            said = [f"number {number}" for number in range(200)]  # more statements than any statement cache holds
            for text in said:
                poster.say(channel, text)
            assert texts(receive(stream, len(said))) == said
        assert here.stop() == there.stop() == 0


def test_without_the_setting_the_pooler_says_no_and_the_log_says_why(
    pooled: Callable[[str], str], database_url: str, tmp_path: Path
) -> None:
    with ServerProcess(tmp_path, DATABASE_URL=pooled(database_url)).start(ready=False) as server:
        wait_until(lambda: "statement_cache_size" in server.tail(), what="the reason in the log")
        assert server.status("/ready") != 200


def test_the_log_has_the_words_with_which_the_pooler_refuses(
    pooled: Callable[[str], str], database_url: str, tmp_path: Path
) -> None:
    url = urlsplit(pooled(database_url))
    wrong = url._replace(netloc=f"{url.username}:wrong@{url.hostname}:{url.port}").geturl()
    settings = {"DATABASE_URL": wrong, "DATABASE__STATEMENT_CACHE_SIZE": 0}
    with ServerProcess(tmp_path, **settings).start(ready=False) as server:
        wait_until(lambda: "authentication failed" in server.tail(), what="the pooler's words in the log")
