"""`openguild-server admin ...`: sends a command to the servers of this host over their admin sockets."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from pathlib import Path
from typing import Any

from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.server.failures import CommandFailed
from openguild_runtime.system.unix_socket import short_socket_path, worker_paths

ANSWER_SECS = 10.0


def add_admin_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `admin channels|sessions|show|set|log|close|drain`."""
    admin = commands.add_parser("admin", help="inspect or change a running server of this host (admin_socket)")
    asking = admin.add_subparsers(dest="ask", metavar="what", required=True)
    for name, text in (
        ("channels", "channels with a backlog, and their slowest readers"),
        ("sessions", "open streams"),
    ):
        listing = asking.add_parser(name, help=text)
        listing.add_argument("--limit", type=int, default=20)
        if name == "sessions":
            listing.add_argument("--user", help="a user id")
    asking.add_parser("show", help="show the settings that can change at run time, and the log filter")
    setting = asking.add_parser("set", help="change a setting until the next start or SIGHUP")
    setting.add_argument("key")
    setting.add_argument("value")
    window = asking.add_parser("replay-window", help="short for: set messaging.replay_window")
    window.add_argument("value")
    level = asking.add_parser("log", help="set the log filter, such as info,openguild=debug")
    level.add_argument("filter")
    closing = asking.add_parser("close", help="close a user's streams; clients reconnect")
    closing.add_argument("--user", required=True)
    asking.add_parser("drain", help="drain and exit, with all workers, as at SIGTERM")


def run_admin(config: ServerConfig, arguments: dict[str, Any]) -> int:
    """Send the command to the server or to all its workers; `drain` to one worker, whose supervisor drains all.

    Return the exit status: 1 if any of them failed. Raises CommandFailed.
    """
    path = config.admin_path
    if path is None:
        raise CommandFailed(
            "admin_socket: is not set: give the settings that the server runs with, such as --embedded --data-dir .data"
        )
    request = _request(arguments)
    answer = _ask(path, request)
    if answer is not None:
        return _print([answer])
    workers: dict[int, dict[str, Any] | None] = {}
    for number, each in worker_paths(path).items():
        workers[number] = said = _ask(each, request)
        if said and "draining" in said:
            return _print([{"worker": number} | said])
    if not any(workers.values()):  # the sockets are left from killed processes
        raise CommandFailed(f"admin: no server listens at {path}")
    return _print([{"worker": number} | (said or {"error": "does not listen"}) for number, said in workers.items()])


def _print(answers: list[dict[str, Any]]) -> int:
    for answer in answers:
        sys.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
    return int(any("error" in answer for answer in answers))


def _request(arguments: dict[str, Any]) -> dict[str, Any]:
    command = arguments["ask"]
    if command == "replay-window":
        return {"command": "set", "key": "messaging.replay_window", "value": arguments["value"]}
    names = ("limit", "user", "key", "value", "filter")
    return {"command": command} | {name: arguments[name] for name in names if arguments.get(name) is not None}


def _ask(path: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """Return the answer; None if no server listens there."""
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
    answer: dict[str, Any] = json.loads(text)
    return answer
