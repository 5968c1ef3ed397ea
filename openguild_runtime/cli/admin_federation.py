"""`openguild-server admin federation ...`: lists of other servers, and decisions about them."""

from __future__ import annotations

import argparse
from typing import Any

NAMES = ("action", "server", "guild", "reason", "limit", "revoke")


def add_federation_commands(asking: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `admin federation peers|guilds|allow|deny|quarantine|clear|retry|keys`."""
    federation = asking.add_parser("federation", help="list, allow and deny other servers")
    actions = federation.add_subparsers(dest="action", metavar="action", required=True)
    peers = actions.add_parser("peers", help="list the known servers with standing, address and last contact")
    peers.add_argument("server", nargs="?", help="only this server, with its keys")
    peers.add_argument("--limit", type=int, default=200)
    guilds = actions.add_parser("guilds", help="list the guilds with members on several servers")
    guilds.add_argument("--limit", type=int, default=200)
    for action, text in (
        ("allow", "trust a server, also in mode pinned; until clear"),
        ("deny", "refuse a server and do not contact it; until clear"),
        ("quarantine", "accept no new posts, joins or invites from a server; until clear"),
        ("clear", "undo allow, deny or quarantine"),
    ):
        ruling = actions.add_parser(action, help=f"{text}; applies immediately on every replica")
        ruling.add_argument("server")
        ruling.add_argument("--guild", metavar="ID", help="only in this guild")
        if action != "clear":
            ruling.add_argument("--reason", default="", help="a reason of one line, shown to affected users")
    retry = actions.add_parser("retry", help="contact a server now; exit status 1 without a valid response")
    retry.add_argument("server")
    keys = actions.add_parser("keys", help="list the keys of this server")
    keys.add_argument("--revoke", metavar="KEY_ID", help="revoke a former key, and tell the other servers")


def federation_request(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the request for the admin socket."""
    return {"command": "federation"} | {
        name: arguments[name] for name in NAMES if arguments.get(name) not in {None, ""}
    }
