"""`openguild-server admin ...`: sends a command to the servers of this host over their admin sockets."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from pathlib import Path
from typing import Any, TypeAlias

from openguild_proto.diagnosis.printable import printable
from openguild_runtime.cli.admin_federation import add_federation_commands, federation_request
from openguild_runtime.cli.admin_guild import add_guild_commands, guild_request
from openguild_runtime.cli.admin_password import add_password_command, set_password
from openguild_runtime.cli.admin_top import show_top
from openguild_runtime.cli.admin_why import show_why
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.server.failures import CommandFailed
from openguild_runtime.system.unix_socket import short_socket_path, worker_paths

ANSWER_SECS = 10.0
ONCE = frozenset({"delete-account"})
"""Commands that change stored data, which are sent to one worker only."""

Answer: TypeAlias = dict[str, Any]


def add_admin_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `admin` and its commands."""
    admin = commands.add_parser("admin", help="inspect or change a running server of this host (admin_socket)")
    asking = admin.add_subparsers(dest="ask", metavar="command", required=True)
    top = asking.add_parser(
        "top", help="a live view: backlogs, slow readers, failed logins, busy users, event loop, queue, pool, NATS"
    )
    top.add_argument("--json", action="store_true", help="print one snapshot as JSON, and exit")
    top.add_argument("--once", action="store_true", help="print one table, and exit; the default without a terminal")
    top.add_argument("--interval", type=float, default=2.0, metavar="SECS", help="between two refreshes, by default 2")
    why = asking.add_parser("why", help="show what happened to a request; exit status 1 if the server no longer has it")
    why.add_argument("request_id", help="x-request-id of the response, or request_id of the error")
    why.add_argument("--json", action="store_true", help="print the record as JSON")
    for name, text in (
        ("channels", "list channels with a backlog, their slowest readers, and readers that were closed as too slow"),
        ("sessions", "list open streams and gateway sockets"),
    ):
        listing = asking.add_parser(name, help=text)
        listing.add_argument("--limit", type=int, default=20, help="maximum number, by default %(default)s")
        if name == "sessions":
            listing.add_argument("--user", help="a user name or id; exit status 1 if there is no such session")
    asking.add_parser("show", help="show the settings that can change at run time, and the log filter")
    setting = asking.add_parser("set", help="change a setting until the next start or SIGHUP")
    setting.add_argument("key", help="such as messaging.replay_window; `admin show` lists them")
    setting.add_argument("value", help="as in the configuration")
    window = asking.add_parser("replay-window", help="same as: set messaging.replay_window")
    window.add_argument("value", help="events replayed to a stream without `since`")
    level = asking.add_parser("log", help="set the log filter, such as info,openguild=debug")
    level.add_argument(
        "filter", help="level, or target=level, comma-separated; levels: trace, debug, info, warn, error, off"
    )
    closing = asking.add_parser(
        "close", help="close a user's streams; clients reconnect; exit status 1 if there is none"
    )
    closing.add_argument("--user", required=True, help="a user name or id")
    for name, text, of_address, of_account in (
        (
            "block",
            "refuse logins from an address or to an account for a while, on every replica; `password` ends sessions",
            "for IPv6 its whole /64; also refuses registrations from there",
            "a user name; its owner can still log in from an address with a session",
        ),
        ("unblock", "end a block", "as in block", "a user name"),
    ):  # fmt: skip
        blocking = asking.add_parser(name, help=text)
        which = blocking.add_mutually_exclusive_group(required=True)
        which.add_argument("--address", help=of_address)
        which.add_argument("--account", help=of_account)
        if name == "block":
            blocking.add_argument("--secs", type=int, default=3_600, help="how long, by default %(default)s")
    asking.add_parser("blocks", help="list the blocks")
    add_password_command(asking)
    deleting = asking.add_parser("delete-account", help="delete a user's account permanently, on every replica")
    deleting.add_argument("--user", required=True, help="a user name or id")
    add_federation_commands(asking)
    add_guild_commands(asking)
    asking.add_parser("drain", help="drain and stop the server with all workers, as SIGTERM does")


def run_admin(config: ServerConfig, arguments: dict[str, Any]) -> int:
    """Send the command to the server or to all its workers; `drain` to one worker, whose supervisor drains all.

    Returns the exit status, 1 if any of them failed or if nothing matched. Raises CommandFailed.
    """
    path = config.admin_path
    if path is None:
        raise CommandFailed(
            "admin_socket: is not set: export OPENGUILD_SERVER__ADMIN_SOCKET as the server has it; "
            'beside `make run`: "$PWD/.data/admin.sock"'
        )
    if arguments["ask"] == "password":
        return set_password(lambda request: ask_one(path, request), arguments)
    request = _request(arguments)
    match request["command"]:
        case "top":
            return show_top(lambda: ask_all(path, request), arguments)
        case "why":
            return show_why(ask_all(path, request), arguments)
    answers = [ask_one(path, request)] if request["command"] in ONCE else ask_all(path, request)
    for answer in answers:
        text = json.dumps(answer, indent=2, ensure_ascii=False)
        sys.stdout.write(printable(text, kept="\n") + "\n")  # other servers choose parts of it
    failed = any("error" in answer for answer in answers)
    looks_for_user = arguments.get("user") is not None and request["command"] not in ONCE
    return int(failed or (looks_for_user and not _matched(answers)))


def _matched(answers: list[Answer]) -> bool:
    """Return whether the named user had a session with any worker."""
    return any(answer.get("total") or answer.get("closed") for answer in answers)


def ask_all(path: Path, request: dict[str, Any]) -> list[Answer]:
    """Return the answer of the server, or those of its workers. Raises CommandFailed if none listens."""
    answer = _ask(path, request)
    if answer is not None:
        return [answer]
    workers: dict[int, Answer | None] = {}
    for number, each in worker_paths(path).items():
        workers[number] = said = _ask(each, request)
        if said and "draining" in said:
            return [{"worker": number} | said]
    if not any(workers.values()):  # the sockets were left by killed processes
        raise _nobody_listens(path)
    return [{"worker": number} | (said or {"error": "does not listen"}) for number, said in workers.items()]


def ask_one(path: Path, request: dict[str, Any]) -> Answer:
    """Return the answer of the server, or that of one of its workers. Raises CommandFailed if none listens."""
    answer = _ask(path, request)
    if answer is not None:
        return answer
    for number, each in worker_paths(path).items():
        if (answer := _ask(each, request)) is not None:
            return {"worker": number} | answer
    raise _nobody_listens(path)


def _nobody_listens(path: Path) -> CommandFailed:
    return CommandFailed(
        f"admin: no server listens at {path}: start it, or export OPENGUILD_SERVER__ADMIN_SOCKET as for the server"
    )


def _request(arguments: dict[str, Any]) -> dict[str, Any]:
    command = arguments["ask"]
    if command == "replay-window":
        return {"command": "set", "key": "messaging.replay_window", "value": arguments["value"]}
    if command == "federation":
        return federation_request(arguments)
    if command == "guild":
        return guild_request(arguments)
    names = ("limit", "user", "key", "value", "filter", "request_id", "address", "account", "secs")
    return {"command": command} | {name: arguments[name] for name in names if arguments.get(name) is not None}


def _ask(path: Path, request: dict[str, Any]) -> Answer | None:
    """Return the answer, or None if no server listens there."""
    text = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(ANSWER_SECS)
        try:
            with short_socket_path(path) as name:
                client.connect(name)
            client.sendall(json.dumps(request).encode() + b"\n")
            while not text.endswith(b"\n") and (data := client.recv(65_536)):
                text += data
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as failure:
            return {"error": failure.strerror or str(failure)}
    if not text:
        return {"error": "no answer"}
    answer: Answer = json.loads(text)
    return answer
