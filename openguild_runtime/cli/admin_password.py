"""`openguild-server admin password`: sets a user's password, without showing it in logs, process lists or shell history."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Callable
from typing import Any

import anyio

from openguild_proto.sessions.passwords import password_problems
from openguild_runtime.effects.passwords import PasswordHasher
from openguild_runtime.server.failures import CommandFailed

MAX_SECRET_BYTES = 8_192  # read from standard input
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # without letters that are easily confused
GROUPS, GROUP_LETTERS = 4, 5  # 99 random bits


def add_password_command(asking: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `admin password`."""
    setting = asking.add_parser(
        "password", help="set a user's password, and log all their devices out, on every replica"
    )
    setting.add_argument("--user", required=True, help="a user name or id")
    setting.add_argument(
        "--password-stdin", action="store_true",
        help="read the password from standard input; otherwise one is generated and printed",
    )  # fmt: skip


def set_password(ask: Callable[[dict[str, Any]], dict[str, Any]], arguments: dict[str, Any]) -> int:
    """Set the password, print the answer with a generated password, and return the exit status. Raises CommandFailed.

    The password is hashed here, so that the server and its logs never see it.
    """
    generated = None if arguments["password_stdin"] else generate_password()
    password = generated or _read().strip()  # as registration and login do (PROTOCOL 4.1.2)
    problems = password_problems(password)
    if problems:
        raise CommandFailed("; ".join(f"{problem.field} {problem.message}" for problem in problems))
    password_hash = anyio.run(PasswordHasher().hash, password)
    answer = ask({"command": "password", "user": arguments["user"], "password_hash": password_hash})
    failed = "error" in answer
    if generated is not None and not failed:
        answer = answer | {"password": generated}
    sys.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
    return int(failed)


def generate_password() -> str:
    """Return a random password that is easy to read aloud."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(GROUP_LETTERS)) for _ in range(GROUPS))


def _read() -> str:
    try:
        return sys.stdin.read(MAX_SECRET_BYTES)
    except UnicodeDecodeError:
        raise CommandFailed("password: standard input is not UTF-8") from None
