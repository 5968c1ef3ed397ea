"""`openguild-server admin guild ...`: guilds that move to another server, or come here."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from openguild_runtime.server.failures import CommandFailed

NAMES = ("action", "guild", "server")


def add_guild_commands(asking: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `admin guild move|moves|cancel|succeed`."""
    guild = asking.add_parser("guild", help="move a guild to another server, or go on with one whose server is lost")
    actions = guild.add_subparsers(dest="action", metavar="action", required=True)
    move = actions.add_parser(
        "move", help="begin to move a guild of this server to one that mirrors it; goes on in the background"
    )
    move.add_argument("guild", help="its id")
    move.add_argument("server")
    actions.add_parser("moves", help="the moves under way, and how far they are")
    cancel = actions.add_parser("cancel", help="take back a move whose guild is still of this server")
    cancel.add_argument("guild", help="its id")
    succeed = actions.add_parser("succeed", help="own a guild whose server is lost for good")
    succeed.add_argument(
        "statement", help="a file with what GET /guilds/{guild_id}/succession answered, or - for standard input"
    )


def guild_request(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the request for the admin socket. Raises CommandFailed for a statement that cannot be read."""
    request = {"command": "guild"} | {name: arguments[name] for name in NAMES if arguments.get(name) is not None}
    if arguments.get("statement") is not None:
        request["statement"] = _statement(arguments["statement"])
    return request


def _statement(path: str) -> Any:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        found = json.loads(text)
    except (OSError, ValueError) as problem:
        raise CommandFailed(f"admin: {path}: cannot be read as JSON: {problem}") from None
    return found.get("statement", found) if isinstance(found, dict) else found
