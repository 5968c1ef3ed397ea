"""The accept loop: raw non-blocking listening sockets."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import anyio
import anyio.lowlevel
import structlog

from openguild_proto.shared_texts import shared
from openguild_runtime.system.turns import Turn

BACKLOG = 4_096  # capped by net.core.somaxconn; a reconnect storm arrives in one burst
UNSENT_BYTES = 131_072
ACCEPT_BATCH = 8  # connections between two checks of the clock
LAST_ACCEPT_SECS = 0.1  # at most, for the backlog of a listener that closes: new connections may come all the time
RAN_OUT_PAUSE_SECS = 0.05  # until aborted connections have released their descriptors
OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

log = structlog.get_logger("openguild.listener")


def open_listener(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a bound, listening, non-blocking socket. Raises OSError if the address is in use or not of this machine.

    `shared` allows the other workers to bind it as well; the kernel distributes the connections.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        _set_for_accepted(sock)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _set_for_accepted(listener: socket.socket) -> None:
    """Set options that accepted sockets inherit, which saves system calls for each connection.

    On Linux the kernel buffers UNSENT_BYTES for a peer that does not read, instead of megabytes. Fast readers are not
    slowed down, because bytes in flight do not count.
    """
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


async def accept_forever(
    listener: socket.socket,
    serve: Callable[[socket.socket, str], None],
    ran_out: Callable[[OSError], None],
    clock: Callable[[], float],
) -> None:
    """Accept until the listener is closed or the task is cancelled. `serve(sock, peer_address)` takes over each socket.

    `ran_out` is called when descriptors or memory run out, to make room. `clock` returns monotonic seconds: accepting is
    limited in each turn of the loop, so that a storm of connections does not stall it.
    """
    turn = Turn(clock)
    while True:
        if listener.fileno() < 0:
            return
        try:
            await anyio.wait_readable(listener)
        except anyio.ClosedResourceError:
            return
        while turn.left() > 0:
            accepted, failure = _accept_some(listener)
            if failure is not None and failure.errno in OUT_OF_DESCRIPTORS:
                ran_out(failure)  # first, as it would close new connections, which are idle too
            for sock, address in accepted:
                serve(sock, address)
            if failure is not None and failure.errno in OUT_OF_DESCRIPTORS:
                await anyio.sleep(RAN_OUT_PAUSE_SECS)  # the backlog holds new connections
            elif failure is not None:  # accept(2): errors of the new connection, such as EPERM, are skipped
                log.warning("a connection was lost before it was accepted", errno=failure.errno)
            if len(accepted) < ACCEPT_BATCH:
                break


def _accept_some(listener: socket.socket) -> tuple[list[tuple[socket.socket, str]], OSError | None]:
    """Return up to ACCEPT_BATCH sockets with their addresses, and the OSError that stopped the batch, or None."""
    accepted: list[tuple[socket.socket, str]] = []
    while len(accepted) < ACCEPT_BATCH:
        try:
            sock, address = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            break
        except OSError as failure:
            return accepted, failure
        sock.setblocking(False)
        accepted.append((sock, _plain(address[0])))
    return accepted, None


async def stop_accepting(
    listener: socket.socket, serve: Callable[[socket.socket, str], None], clock: Callable[[], float]
) -> None:
    """Serve the connections that wait in the backlog, which closing the listener would reset, and close it."""
    turn, until = Turn(clock), clock() + LAST_ACCEPT_SECS
    while clock() < until:
        accepted, failure = _accept_some(listener)
        for sock, address in accepted:
            serve(sock, address)
        if failure is not None or not accepted:  # others may have come while these were served
            break
        if turn.left() <= 0:
            await anyio.lowlevel.checkpoint()
    close_listener(listener)


def close_listener(listener: socket.socket) -> None:
    """Close the listener and end `accept_forever`. Does nothing if it is closed already."""
    if listener.fileno() >= 0:
        anyio.notify_closing(listener)
        listener.close()


def address_of(listener: socket.socket) -> str:
    """Return `host:port`, with an IPv6 host in brackets."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _plain(address: str) -> str:
    """Return an address, IPv4-mapped ones as IPv4. Connections from one address share the string, to save memory."""
    return shared(address.removeprefix("::ffff:"))
