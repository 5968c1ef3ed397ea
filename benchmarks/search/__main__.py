"""Searches in a million messages, by kind: `python -m benchmarks.search [--messages N] [--data-dir DIR] [--save]`."""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import msgspec

from benchmarks.lab.program import positive, program
from benchmarks.lab.results import require_writable, stamped, write
from benchmarks.search.fill import Place, fill, index, people_and_channels
from benchmarks.search.talk import Talk
from openguild_proto.effects.search import SearchMessages, SearchTooWide
from openguild_proto.policy.search import Has, SearchConditions, parse_phrases
from openguild_runtime.embedded import EmbeddedPostgres
from openguild_runtime.storage import migrations
from openguild_runtime.storage.postgres import PostgresStorage

ROUNDS = 40  # searches of each kind, each for another word
LIMIT = 26


def kinds(talk: Talk, place: Place) -> dict[str, Callable[[random.Random], SearchConditions]]:
    """Return the kinds of search by name."""
    english, russian, chinese, korean = talk.english.items, talk.russian.items, talk.chinese.items, talk.korean.items

    def words(query: str, **more: Any) -> SearchConditions:
        return SearchConditions(phrases=parse_phrases(query), **more)

    def quoted(chance: random.Random, low: int, high: int) -> str:
        return f'"{english[chance.randrange(low, high)]}"'

    def common(chance: random.Random) -> str:
        return quoted(chance, 0, 20)

    def middle(chance: random.Random) -> str:
        return quoted(chance, 200, 2_000)

    def rare(chance: random.Random) -> str:
        return quoted(chance, 20_000, 40_000)

    def signs(chance: random.Random, count: int, high: int) -> str:
        return "".join(chinese[chance.randrange(high)] for _ in range(count))

    return {
        "rare word": lambda chance: words(rare(chance)),
        "middle word": lambda chance: words(middle(chance)),
        "very common word": lambda chance: words(common(chance)),
        "word being typed (3 letters)": lambda chance: words(english[chance.randrange(300, 3_000)][:3]),
        "word being typed, common": lambda chance: words(("the", "you", "tha", "wit", "not")[chance.randrange(5)]),
        "two middle words": lambda chance: words(f"{middle(chance)} {middle(chance)}"),
        "common and rare word": lambda chance: words(f"{common(chance)} {rare(chance)}"),
        "two common words": lambda chance: words(f"{common(chance)} {common(chance)}"),
        "phrase of common words": lambda chance: words(f'"{english[chance.randrange(10)]} {english[chance.randrange(10)]}"'),
        "phrase with a middle word": lambda chance: words(f'"the {english[chance.randrange(200, 1_000)]}"'),
        "Russian word": lambda chance: words(f'"{russian[chance.randrange(2_000)]}"'),
        "nothing to find": lambda chance: words(f'"qqq{chance.randrange(9_999)}"'),
        "Chinese, 1 common character": lambda chance: words(signs(chance, 1, 20)),
        "Chinese, 1 character": lambda chance: words(signs(chance, 1, 3_000)),
        "Chinese, 2 characters": lambda chance: words(signs(chance, 2, 200)),
        "Chinese, 3 characters": lambda chance: words(signs(chance, 3, 50)),
        "Korean word": lambda chance: words(korean[chance.randrange(2_000)]),
        "emoji": lambda chance: words("👍"),
        "from": lambda chance: SearchConditions(author_id=chance.choice(place.authors)),
        "from, with a middle word": lambda chance: words(middle(chance), author_id=chance.choice(place.authors)),
        "from, with a common word": lambda chance: words(common(chance), author_id=chance.choice(place.authors)),
        "in a channel, middle word": lambda chance: words(middle(chance), places=(chance.choice(place.channels),)),
        "in a channel, common word": lambda chance: words(common(chance), places=(chance.choice(place.channels),)),
        "in a guild, rare word": lambda chance: words(rare(chance), places=(chance.choice(place.guilds),)),
        "has link": lambda chance: SearchConditions(has=frozenset({Has.LINK})),
        "has pin": lambda chance: SearchConditions(has=frozenset({Has.PIN})),
        "has reaction": lambda chance: SearchConditions(has=frozenset({Has.REACTION})),
        "has reaction, middle word": lambda chance: words(middle(chance), has=frozenset({Has.REACTION})),
        "has link and reply, common word": lambda chance: words(common(chance), has=frozenset({Has.LINK, Has.REPLY})),
        "before, common word": lambda chance: words(common(chance), until_ms=1_764_000_000_000 + chance.randrange(25_000_000_000)),
    }  # fmt: skip


def asked(place: Place) -> Iterator[tuple[str, str]]:
    yield "of 200 channels", place.everywhere
    yield "of 50 channels", place.of_guild
    yield "of 1 channel", place.of_channel


async def measure(storage: PostgresStorage, place: Place) -> dict[str, Any]:
    """Return the milliseconds of each kind for each reader, after a warm-up round."""
    talk = Talk()
    found: dict[str, Any] = {}
    for reader, reader_id in asked(place):
        for name, make in kinds(talk, place).items():
            times, hits, wide = [], 0, 0
            for warm in (False, True):
                chance = random.Random(name)
                for _ in range(ROUNDS):
                    effect = SearchMessages(reader_id=reader_id, wanted=make(chance), limit=LIMIT)
                    began = time.perf_counter()
                    page = await storage.perform(effect)
                    if warm:
                        times.append((time.perf_counter() - began) * 1000)
                        wide += isinstance(page, SearchTooWide)
                        hits += len(page) if isinstance(page, tuple) else 0
            times.sort()
            found[f"{name}, {reader}"] = row = {
                "p50_ms": statistics.median(times), "p95_ms": times[int(len(times) * 0.95)], "max_ms": times[-1],
                "hits": hits / ROUNDS, "too_wide": wide, "times": times,
            }  # fmt: skip
            print(f"{name + ', ' + reader:52} p50 {row['p50_ms']:7.1f}  p95 {row['p95_ms']:7.1f}  max {row['max_ms']:7.1f} ms"
                  f"  {row['hits']:5.1f} hits  {wide or ''}", flush=True)  # fmt: skip
    every = sorted(one for row in found.values() for one in row.pop("times"))
    found["all"] = {
        "p50_ms": statistics.median(every),
        "p95_ms": every[int(len(every) * 0.95)],
        "p99_ms": every[int(len(every) * 0.99)],
    }
    print(found["all"])
    return found


async def run(url: str, directory: Path, messages: int) -> dict[str, Any]:
    """Fill and index the database, unless an earlier run has filled it, and search."""
    kept = directory / "place.json"
    async with anyio.create_task_group() as tasks:
        storage = PostgresStorage(url, tasks)
        await storage.start()
        found: dict[str, Any] = {"messages": messages}
        if not kept.exists():
            place = await people_and_channels(storage)
            await fill(url, place, messages)
            found["index_secs"] = await index(storage)
            print(f"indexed {messages / found['index_secs']:.0f} messages a second", flush=True)
            connection = await asyncpg.connect(url)
            await connection.execute("VACUUM ANALYZE search_documents")
            kept.write_bytes(msgspec.json.encode(place))
            await connection.close()
        place = msgspec.json.decode(kept.read_bytes(), type=Place)
        connection = await asyncpg.connect(url)
        found["bytes"] = dict(
            await connection.fetchrow(
                "SELECT pg_table_size('search_documents') AS documents, pg_relation_size('search_documents_terms') AS terms"
            )
            or ()
        )
        print(found["bytes"])
        await connection.close()
        found["searches"] = await measure(storage, place)
        await storage.aclose()
        tasks.cancel_scope.cancel()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--messages", type=positive, default=1_000_000)
    parser.add_argument("--data-dir", type=Path, help="kept for the next run")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/search.json")
    options = parser.parse_args()
    if options.save:
        require_writable()
    stamp = stamped({})
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.data_dir or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        postgres = EmbeddedPostgres(directory, fsync=False)
        postgres.start()
        try:
            if not (directory / "place.json").exists():
                anyio.run(migrations.upgrade, postgres.url)
            found = anyio.run(run, postgres.url, directory, options.messages, backend_options={"use_uvloop": True})
        finally:
            postgres.stop()
    if options.save:
        write("search", stamp | found)


if __name__ == "__main__":
    program(main)
