"""Ends with one line if the address that `make run` will serve on is taken, before anything is installed: needs only Python.

Looks at the environment. An address that only a file under config/ names is left to the server, which reads these.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

PREFIX = "OPENGUILD_SERVER__"
LISTENING = "0A"


def address() -> tuple[str, int] | None:
    """Return host and port; None: they are not known here, or are no address, which the server says better."""
    given = {name: os.environ.get(PREFIX + name, "") for name in ("BIND_ADDR", "HOST", "PORT")}
    in_files = any(Path("config").glob("server.*"))
    host, _, port = given["BIND_ADDR"].rpartition(":") if given["BIND_ADDR"] else (given["HOST"], "", given["PORT"])
    if not port and in_files:
        return None
    port = port or "8080"
    return (host.strip("[]") or "127.0.0.1", int(port)) if port.isascii() and port.isdigit() else None


def is_taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as failure:
        return failure.errno == errno.EADDRINUSE
    except OverflowError:  # a port above 65535
        return False
    return False


def holder(port: int) -> str | None:
    """Return the process of this user that listens there, as /proc knows it; None: it is not found."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
            sockets |= {f"socket:[{row[9]}]" for row in rows if row[3] == LISTENING and row[1].endswith(f":{port:04X}")}
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        try:
            if any(os.readlink(each) in sockets for each in (process / "fd").iterdir()):
                command = (process / "cmdline").read_text().replace("\0", " ").strip()
                return f"process {process.name}, `{command[:80]}`"
        except OSError:  # another user's, or it has ended
            continue
    return None


def main() -> int:
    found = address()
    if found is None or not is_taken(*found):
        return 0
    host, port = found
    who = holder(port) or f"another program, perhaps an earlier `make run`; `lsof -i :{port}` names it"
    shown = f"[{host}]" if ":" in host else host
    sys.stderr.write(
        f"{shown}:{port} is taken by {who}: end it, or choose another port, such as: export {PREFIX}PORT={port + 5}\n"
    )
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
