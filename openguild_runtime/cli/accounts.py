"""Commands for accounts and roles. Scripts rely on their output (PROTOCOL 11.5.2)."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import anyio

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.accounts import FindUserByName, InsertUser
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole, GrantServerRole, RevokeServerRole
from openguild_proto.policy.permissions import RANKS, normalise_role
from openguild_proto.records import MemberChange, UserRecord
from openguild_proto.schemas.decode import parse_uuid
from openguild_proto.sessions.passwords import normalise_username, password_problems, username_problems
from openguild_proto.uuids import new_uuid
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.effects.passwords import PasswordHasher
from openguild_runtime.embedded.private import private_servers
from openguild_runtime.observability.database_causes import explain
from openguild_runtime.server.failures import CommandFailed
from openguild_runtime.server.parts import make_writer
from openguild_runtime.storage.postgres import PostgresStorage

Arguments: TypeAlias = dict[str, Any]
T = TypeVar("T")
MAX_SECRET_BYTES = 8_192  # read from a file or stdin


def add_role_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `seed-user` and the commands that assign and revoke roles."""
    seed = commands.add_parser("seed-user", help="create an account")
    seed.add_argument("--username", required=True)
    source = seed.add_mutually_exclusive_group(required=True)
    source.add_argument("--password", help="visible in process lists: prefer the other two options")
    source.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    source.add_argument("--password-file", metavar="PATH")
    for name, scope in (
        ("assign-server-role", None),
        ("revoke-server-role", None),
        ("assign-guild-role", "--guild-id"),
        ("assign-channel-role", "--channel-id"),
    ):
        command = commands.add_parser(name, help=name.replace("-", " "))
        command.add_argument("--username", required=True)
        if scope is not None:
            command.add_argument(scope, required=True)
        command.add_argument("--role", required=True)


@asynccontextmanager
async def _storage(config: ServerConfig, purpose: str) -> AsyncIterator[PostgresStorage]:
    async with private_servers(config) as completed:
        if completed.database_url is None:
            raise CommandFailed(f"database_url must be configured to {purpose}")
        async with anyio.create_task_group() as tasks:
            storage = PostgresStorage(
                completed.database_url.get_secret_value(), tasks, pool_size=1, writer=make_writer(completed)
            )
            try:
                await storage.open()
                health = await storage.check()
                if not health.usable:
                    raise CommandFailed(f"the database cannot be used: {explain(health.cause)}")
                yield storage
            finally:
                await storage.aclose()


async def seed_user(config: ServerConfig, arguments: Arguments) -> int:
    """Create an account unless its name is taken, and return 0. Raises CommandFailed, StorageUnavailable."""
    username, username_key = normalise_username(arguments["username"])
    password = _password(arguments).strip()  # as registration and login do (PROTOCOL 4.1.2)
    problems = [*username_problems(username), *password_problems(password)]
    if problems:
        raise CommandFailed("; ".join(f"{problem.field} {problem.message}" for problem in problems))
    async with _storage(config, "seed users") as storage:
        if await storage.perform(FindUserByName(username_key=username_key)) is None:
            user_id = new_uuid(secrets.token_bytes)
            stored = await storage.perform(
                InsertUser(
                    user_id=user_id,
                    username=username,
                    username_key=username_key,
                    password_hash=await PasswordHasher().hash(password),
                    now_ms=_now_ms(),
                )
            )
            if stored:
                return _print_line(f"Seeded user '{username}' with id {user_id}")
    return _print_line(f"User '{username}' already exists; skipping")


def _password(arguments: Arguments) -> str:
    if arguments["password_stdin"]:
        return sys.stdin.read(MAX_SECRET_BYTES)
    if arguments["password_file"] is not None:
        try:
            with Path(arguments["password_file"]).open() as file:
                return file.read(MAX_SECRET_BYTES)
        except (OSError, UnicodeDecodeError):
            raise CommandFailed("password-file cannot be read: check the path and its permissions") from None
    password: str = arguments["password"]
    return password


async def _change(
    config: ServerConfig, arguments: Arguments, purpose: str, change: Callable[[str], StorageEffect[T]]
) -> tuple[UserRecord, T]:
    """Perform `change(user_id)` for the named user and return the user with the result."""
    async with _storage(config, purpose) as storage:
        user = await _user(storage, arguments)
        return user, await storage.perform(change(user.user_id))


async def assign_server_role(config: ServerConfig, arguments: Arguments) -> int:
    """Give a user a role on the whole server. Raises CommandFailed, StorageUnavailable."""
    role = _role(arguments)
    user, _ = await _change(
        config, arguments, "assign server roles",
        lambda user_id: GrantServerRole(user_id=user_id, role=role, now_ms=_now_ms()),
    )  # fmt: skip
    return _print_line(f"Assigned server role '{role}' to user '{user.username}' (id: {user.user_id})")


async def revoke_server_role(config: ServerConfig, arguments: Arguments) -> int:
    """Remove a server role and return 0, even if the user did not have it. Raises CommandFailed, StorageUnavailable."""
    role = _role(arguments)
    user, had = await _change(
        config,
        arguments,
        "revoke server roles",
        lambda user_id: RevokeServerRole(user_id=user_id, role=role, now_ms=_now_ms()),
    )
    if had:
        return _print_line(f"Removed server role '{role}' from user '{user.username}' (id: {user.user_id})")
    return _print_line(f"User '{user.username}' (id: {user.user_id}) did not have server role '{role}'")


async def assign_guild_role(config: ServerConfig, arguments: Arguments) -> int:
    """Give a user a role in a guild. Raises CommandFailed, StorageUnavailable."""
    return await _assign_within(
        "guild", config, arguments,
        lambda guild_id, user_id, role: GrantGuildRole(guild_id=guild_id, user_id=user_id, role=role, now_ms=_now_ms()),
    )  # fmt: skip


async def assign_channel_role(config: ServerConfig, arguments: Arguments) -> int:
    """Give a user a role in a channel. Raises CommandFailed, StorageUnavailable."""
    return await _assign_within(
        "channel", config, arguments,
        lambda channel_id, user_id, role: GrantChannelRole(channel_id=channel_id, user_id=user_id, role=role, now_ms=_now_ms()),
    )  # fmt: skip


async def _assign_within(
    noun: str, config: ServerConfig, arguments: Arguments,
    grant: Callable[[str, str, str], StorageEffect[Any]],
) -> int:  # fmt: skip
    """Give a role in a guild or channel. `grant(scope_id, user_id, role)` returns False or None if the scope is missing."""
    role, scope_id = _role(arguments), _uuid(arguments, f"{noun}_id")
    user, found = await _change(
        config, arguments, f"assign {noun} roles", lambda user_id: grant(scope_id, user_id, role)
    )
    if found is MemberChange.LAST_OWNER:
        raise CommandFailed(
            f"'{user.username}' is the only owner of guild '{scope_id}': make another member owner first"
        )
    if found is MemberChange.NOT_MEMBER:
        raise CommandFailed(f"'{user.username}' belongs to another server: they must join by an invite first")
    if found is MemberChange.BANNED:
        raise CommandFailed(
            f"'{user.username}' is banned from guild '{scope_id}': a moderator of the guild must end the ban first"
        )
    if not found:
        raise CommandFailed(f"{noun} '{scope_id}' not found")
    return _print_line(f"Assigned {noun} role '{role}' to user '{user.username}' in {noun} {scope_id}")


COMMANDS: dict[str, Callable[[ServerConfig, Arguments], Awaitable[int]]] = {
    "seed-user": seed_user,
    "assign-server-role": assign_server_role,
    "revoke-server-role": revoke_server_role,
    "assign-guild-role": assign_guild_role,
    "assign-channel-role": assign_channel_role,
}


def _role(arguments: Arguments) -> str:
    if not arguments["username"].strip():
        raise CommandFailed("username must be provided")
    given: str = arguments["role"].strip()
    if not given:
        raise CommandFailed("role must be provided")
    role = normalise_role(given)
    if role is None:
        expected = ", ".join(f'"{known}"' for known in RANKS)
        raise CommandFailed(f"unsupported role '{given}'; expected one of [{expected}]")
    return role


def _uuid(arguments: Arguments, name: str) -> str:
    parsed = parse_uuid(arguments[name])
    if parsed is None:
        raise CommandFailed(f"{name.replace('_', '-')} must be a UUID")
    return parsed


async def _user(storage: PostgresStorage, arguments: Arguments) -> UserRecord:
    name, key = normalise_username(arguments["username"])
    user = await storage.perform(FindUserByName(username_key=key))
    if user is None:
        raise CommandFailed(f"user '{name}' not found")
    return user


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _print_line(line: str) -> int:
    sys.stdout.write(line + "\n")
    return 0
