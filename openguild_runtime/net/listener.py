"""The accept loop: raw non-blocking listening sockets."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import anyio
import structlog

from openguild_proto.shared_texts import shared
from openguild_runtime.system.turns import Turn

BACKLOG = 4_096  # capped by net.core.somaxconn; a reconnect storm arrives in one burst
UNSENT_BYTES = 131_072
ACCEPT_BATCH = 8  # connections between two looks at the clock
RAN_OUT_PAUSE_SECS = 0.05  # until connections that were told to end have ended
OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

log = structlog.get_logger("openguild.listener")


def open_listener(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound, listening, non-blocking socket. Raises OSError when the address is taken or not ours.

    `shared`: with the other workers of this host; the kernel spreads connections over them.
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
    """Options that accepted sockets inherit, so that connection set-up saves the calls.

    Linux: a peer that does not read may keep UNSENT_BYTES in the kernel, not the megabytes that it would take
    otherwise; a fast reader is not slowed, because what is in flight does not count.
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
    """Accept until the listener is closed or the task cancelled; `serve(sock, peer_address)` owns each socket.

    `ran_out` of descriptors: makes room if it can, and says so. `clock`: monotonic seconds; a storm of connections leaves the
    loop time for the others.
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
                ran_out(failure)  # before those are served, which have not had the time to send anything
            for sock, address in accepted:
                serve(sock, address)
            if failure is not None and failure.errno in OUT_OF_DESCRIPTORS:
                await anyio.sleep(RAN_OUT_PAUSE_SECS)  # the backlog holds the waiting ones
            elif failure is not None:  # accept(2): an error of the new connection, such as EPERM, is to be passed over
                log.warning("a connection was lost before it was accepted", errno=failure.errno)
            if len(accepted) < ACCEPT_BATCH:
                break


def _accept_some(listener: socket.socket) -> tuple[list[tuple[socket.socket, str]], OSError | None]:
    """Return up to ACCEPT_BATCH sockets with their addresses, and the failure that ended it; None: none has."""
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


def close_listener(listener: socket.socket) -> None:
    """Safe to repeat."""
    if listener.fileno() >= 0:
        anyio.notify_closing(listener)
        listener.close()


def address_of(listener: socket.socket) -> str:
    """`host:port`."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _plain(address: str) -> str:
    """An IPv4 peer of a dual-stack listener is shown as IPv4. The connections of one address share its text."""
    return shared(address.removeprefix("::ffff:"))
