"""Accounts and roles from the command line; the texts are those scripts rely on (CONTRACT 16.1)."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import anyio

from openguild_proto.effects import (
    FindUserByName,
    GrantChannelRole,
    GrantGuildRole,
    GrantServerRole,
    InsertUser,
    RevokeServerRole,
)
from openguild_proto.http.headers import new_request_id
from openguild_proto.policy.permissions import RANKS, normalise_role
from openguild_proto.records import UserRecord
from openguild_proto.schemas.decode import parse_uuid
from openguild_proto.sessions.passwords import normalise_username, password_problems, username_problems
from openguild_runtime.config import ServerConfig
from openguild_runtime.failures import CommandFailed
from openguild_runtime.passwords import PasswordHasher
from openguild_runtime.private import private_servers
from openguild_runtime.storage.postgres import PostgresStorage

Arguments: TypeAlias = dict[str, Any]
MAX_SECRET_BYTES = 8_192  # read from a file or stdin


def add_role_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    seed = commands.add_parser("seed-user", help="create an account")
    seed.add_argument("--username", required=True)
    source = seed.add_mutually_exclusive_group(required=True)
    source.add_argument("--password", help="shows in process lists: prefer the other two")
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
            storage = PostgresStorage(completed.database_url.get_secret_value(), tasks, pool_size=1)
            try:
                await storage.open()
                health = await storage.check()
                if not health.database:
                    raise CommandFailed("the database cannot be reached: check database_url and that it runs")
                if not health.migrations:
                    raise CommandFailed("the schema is not current: run `openguild-server migrate`")
                yield storage
            finally:
                await storage.aclose()


async def seed_user(config: ServerConfig, arguments: Arguments) -> int:
    username, username_key = normalise_username(arguments["username"])
    password = _password(arguments).strip()  # as registering and logging in do (D-23)
    problems = [*username_problems(username), *password_problems(password)]
    if problems:
        raise CommandFailed("; ".join(f"{problem.field} {problem.message}" for problem in problems))
    async with _storage(config, "seed users") as storage:
        if await storage.perform(FindUserByName(username_key=username_key)) is None:
            user_id = new_request_id(secrets.token_bytes)
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
                return _say(f"Seeded user '{username}' with id {user_id}")
    return _say(f"User '{username}' already exists; skipping")


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


async def assign_server_role(config: ServerConfig, arguments: Arguments) -> int:
    role = _role(arguments)
    async with _storage(config, "assign server roles") as storage:
        user = await _user(storage, arguments)
        await storage.perform(GrantServerRole(user_id=user.user_id, role=role, now_ms=_now_ms()))
    return _say(f"Assigned server role '{role}' to user '{user.username}' (id: {user.user_id})")


async def revoke_server_role(config: ServerConfig, arguments: Arguments) -> int:
    role = _role(arguments)
    async with _storage(config, "revoke server roles") as storage:
        user = await _user(storage, arguments)
        had = await storage.perform(RevokeServerRole(user_id=user.user_id, role=role))
    if had:
        return _say(f"Removed server role '{role}' from user '{user.username}' (id: {user.user_id})")
    return _say(f"User '{user.username}' (id: {user.user_id}) did not have server role '{role}'")


async def assign_guild_role(config: ServerConfig, arguments: Arguments) -> int:
    role, guild_id = _role(arguments), _uuid(arguments, "guild_id")
    async with _storage(config, "assign guild roles") as storage:
        user = await _user(storage, arguments)
        if not await storage.perform(
            GrantGuildRole(guild_id=guild_id, user_id=user.user_id, role=role, now_ms=_now_ms())
        ):
            raise CommandFailed(f"guild '{guild_id}' not found")
    return _say(f"Assigned guild role '{role}' to user '{user.username}' in guild {guild_id}")


async def assign_channel_role(config: ServerConfig, arguments: Arguments) -> int:
    role, channel_id = _role(arguments), _uuid(arguments, "channel_id")
    async with _storage(config, "assign channel roles") as storage:
        user = await _user(storage, arguments)
        if not await storage.perform(
            GrantChannelRole(channel_id=channel_id, user_id=user.user_id, role=role, now_ms=_now_ms())
        ):
            raise CommandFailed(f"channel '{channel_id}' not found")
    return _say(f"Assigned channel role '{role}' to user '{user.username}' in channel {channel_id}")


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


def _say(line: str) -> int:
    sys.stdout.write(line + "\n")
    return 0
