"""Every regular expression runs in linear time: peers choose many of the texts."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import openguild_proto
import openguild_runtime
from openguild_runtime.observability import logs

SIZES = (1_024, 16_384)  # large enough to tell quadratic from linear time
PATIENCE = 50  # allowed multiple of the time for a harmless text of the same length; quadratic patterns take thousands
UNITS = (
    "a", "A", "0", "-", "_", ".", ":", "/", "@", "%", "=", "+", "!", "~", " ", "\t", ";", ",", "?", "[", "]", "{", '"', "\\", "`",
    "é", "a-", "a.", "a_", "a:", "a ", "a/", "a@", "a;", "a=", "0a", "0.", "-.", " \t", ": ", "\r\n", "a:\r\n", "a: b\r\n",
    "://", "a://", "a:/", "a://a:", "%0", '\\"', "a" * 40 + ".", "." + "a" * 85, "token=", "secret=", "bearer ", "bearer.a",
    " - at `$", "unknown field `", "\U0001f3f4\U000e0061",
)  # fmt: skip
BEGINNINGS = (
    "", "0", "a", "a:", "a://", "GET /", "GET / HTTP/1.1\r\na:", "application/", "application/a+", "[", "1;", "bearer ", '"',
    "http://a", "-",
)  # fmt: skip
ENDS = ("", "\0", "!", " ")


def patterns() -> Iterator[tuple[re.Pattern[Any], str]]:
    """Yield every compiled pattern that a module of either package holds, alone or in a tuple, with its name."""
    for package in (openguild_proto, openguild_runtime):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if ".migrations." in found.name or found.name.endswith("__main__"):
                continue
            module = importlib.import_module(found.name)
            if not (module.__file__ or "").endswith(".py"):
                continue  # compiled
            for name, value in vars(module).items():
                held = value if isinstance(value, tuple) else ((value,),)
                for number, row in enumerate(held):
                    for item in row if isinstance(row, tuple) else (row,):
                        if isinstance(item, re.Pattern):
                            yield item, f"{found.name}.{name}[{number}]"


PATTERNS = dict(patterns())


def is_searched(pattern: re.Pattern[Any]) -> bool:
    """Return whether the pattern is searched for within a text, and not only matched against all of it."""
    module, _, name = PATTERNS[pattern].rpartition("[")[0].rpartition(".")
    return f"{name}.fullmatch(" not in inspect.getsource(sys.modules[module])


@functools.cache
def texts(size: int) -> list[tuple[str, bytes]]:
    """Return texts that peers may send, for patterns of text and of bytes."""
    return [(text, text.encode("latin-1", "replace")) for text in (all_texts if size == SIZES[0] else texts_at)(size)]


def all_texts(size: int) -> Iterator[str]:
    for beginning in BEGINNINGS:
        for unit in UNITS:
            for end in ENDS:
                yield beginning + (unit * (size // len(unit) + 1))[: size - len(beginning) - len(end)] + end


def wall_secs(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def secs(work: Callable[[], object], times: int = 5) -> float:
    """Return the shortest processor time of this thread in some attempts, in seconds: other processes do not count.

    Asking for that time is a system call, so `wall_secs` decides first. The clock sometimes does not move; that attempt is ignored.
    """
    taken = []
    for _ in range(times):
        started = time.thread_time()
        work()
        taken.append(time.thread_time() - started)
    return min(filter(None, taken), default=0.0)


def test_the_patterns_are_found() -> None:
    names = " ".join(PATTERNS.values())
    for name in ("strictness._REQUEST_LINE", "fast_path._FIELD", "decode._INTEGER", "names._FLAG", "logs._PATTERNS"):
        assert name in names


@pytest.mark.parametrize("pattern", PATTERNS, ids=PATTERNS.values())
def test_a_pattern_is_linear(pattern: re.Pattern[Any]) -> None:
    whole = re.compile(r"(?:[^a]|a)*+b")  # visits each character about once
    looks = (pattern.fullmatch, pattern.search)[: 1 + is_searched(pattern)]
    for size in SIZES:
        bound = PATIENCE * secs(functools.partial(whole.match, "x" * size))
        for text, encoded in texts(size):
            given = text if isinstance(pattern.pattern, str) else encoded
            for look in looks:
                work = functools.partial(look, given)
                if wall_secs(work) > bound:
                    assert secs(work) <= bound, (pattern.pattern, text[:40], text[-10:], size)


def texts_at(size: int) -> Iterator[str]:
    """Yield texts of this size, without the beginnings and some of the ends of `texts`."""
    for unit in UNITS:
        for end in ENDS[:2]:
            yield (unit * (size // len(unit) + 1))[: size - len(end)] + end


@pytest.mark.parametrize("size", SIZES)
def test_redaction_is_linear(size: int) -> None:
    """Redacts as the log does: with all patterns, after a keyword in the line has selected them."""
    bound = PATIENCE * secs(functools.partial(logs.redact, "token" + "word " * (size // 5)))
    for text in texts_at(size):
        work = functools.partial(logs.redact, "token " + text)
        if wall_secs(work) > bound:
            assert secs(work) <= bound, (text[:40], text[-10:])
