"""Connects to another server: resolves its name, refuses addresses that are not allowed, and wraps the connection in TLS.

The address that was checked is the one that is connected to, so a name that resolves to another address later changes nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from openguild_proto.effects.federation import PeerUnavailable
from openguild_proto.federation.addresses import may_connect
from openguild_runtime.federation.name_lookups import NameLookups

CONNECT_SECS = 5.0
MAX_ADDRESSES = 4  # to try for one name
MAX_HANDSHAKE_SECS = 5.0

Resolve = Callable[[str, int], Awaitable[list[str]]]


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, and those of `ca_file`."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Dialer:
    """Opens connections. `allow_private`: also allow loopback, private and link-local addresses."""

    def __init__(
        self, tls: Callable[[], ssl.SSLContext], *, allow_private: bool, resolve: Resolve | None = None
    ) -> None:
        self._tls = cache(
            tls
        )  # reading the system's authorities takes 0.2 s, in a thread; most servers never need them
        self._allow_private = allow_private
        self._resolve = resolve or NameLookups().resolve

    async def connect(self, server: str, base_url: str) -> ByteStream:
        """Return a connection to the host of `base_url`. Raises PeerUnavailable."""
        parts = urlsplit(base_url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        stream = await self._connect_tcp(server, host, port)
        if not secure:
            return stream
        wrapped: ByteStream | None = None
        try:
            with anyio.fail_after(MAX_HANDSHAKE_SECS):
                context = await anyio.to_thread.run_sync(self._tls)
                wrapped = await TLSStream.wrap(stream, hostname=host, ssl_context=context, standard_compatible=False)
        except (ssl.SSLError, ssl.CertificateError) as failure:
            raise PeerUnavailable(server, "tls", str(failure)) from failure
        except (OSError, TimeoutError, anyio.BrokenResourceError, anyio.EndOfStream) as failure:
            raise PeerUnavailable(server, "connect", "no TLS handshake in time") from failure
        finally:
            if wrapped is None:  # also if the request's own deadline came first
                await anyio.aclose_forcefully(stream)
        return wrapped

    async def _connect_tcp(self, server: str, host: str, port: int) -> ByteStream:
        with anyio.move_on_after(CONNECT_SECS):
            try:
                addresses = await self._resolve(host, port)
            except OSError as failure:
                raise PeerUnavailable(server, "address", f"its name has no address: {failure}") from failure
            allowed = [address for address in addresses if self._allow_private or may_connect(address)]
            if not allowed:
                raise PeerUnavailable(server, "address", "its addresses are not allowed")
            failed: OSError | None = None
            for address in allowed[:MAX_ADDRESSES]:
                try:
                    return await anyio.connect_tcp(address, port)
                except OSError as failure:
                    failed = failure
            raise PeerUnavailable(server, "connect", str(failed)) from failed
        raise PeerUnavailable(server, "connect", "not in time")
