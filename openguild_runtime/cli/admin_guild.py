"""`openguild-server admin guild ...`: moves of guilds to and from other servers."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from openguild_runtime.server.failures import CommandFailed

NAMES = ("action", "guild", "server")


def add_guild_commands(asking: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `admin guild move|moves|cancel|succeed|give-up`."""
    guild = asking.add_parser("guild", help="move a guild to another server, or take over one whose server is lost")
    actions = guild.add_subparsers(dest="action", metavar="action", required=True)
    move = actions.add_parser(
        "move", help="start to move a guild of this server to one that mirrors it; continues in the background"
    )
    move.add_argument("guild", help="its id")
    move.add_argument("server")
    actions.add_parser("moves", help="list the moves in progress")
    cancel = actions.add_parser("cancel", help="cancel a move, while this server still owns the guild")
    cancel.add_argument("guild", help="its id")
    succeed = actions.add_parser("succeed", help="take over a guild whose server is permanently lost")
    succeed.add_argument(
        "statement", help="the response of GET /guilds/{guild_id}/succession, a file with it, or - for standard input"
    )
    give_up = actions.add_parser("give-up", help="if two servers own a guild, leave it to the other one")
    give_up.add_argument("guild", help="its id")
    give_up.add_argument("--to", dest="server", required=True, metavar="SERVER", help="the server that keeps the guild")


def guild_request(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the request for the admin socket. Raises CommandFailed if a statement cannot be read."""
    request = {"command": "guild"} | {name: arguments[name] for name in NAMES if arguments.get(name) is not None}
    if arguments.get("statement") is not None:
        request["statement"] = _statement(arguments["statement"])
    return request


def _statement(given: str) -> Any:
    """Return a statement, given as JSON (a container cannot reach the operator's files), as a file, or on standard input."""
    is_text = given.lstrip().startswith("{")
    try:
        text = given if is_text else sys.stdin.read() if given == "-" else Path(given).read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as problem:
        raise CommandFailed(f"admin: {given}: cannot be read ({problem.strerror})") from None
    except ValueError as problem:
        place = "the statement" if is_text else given
        raise CommandFailed(f"admin: {place}: is not JSON: {problem}") from None
    return found.get("statement", found) if isinstance(found, dict) else found
