"""Serves this server's federation address and its keys to others (PROTOCOL 16.1.4, 16.3.1)."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import Discover, ListOwnKeys, PeerUnavailable
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.federation.keys import KeysDocument, write_keys_document
from openguild_proto.federation.policy import VERSION, Mode
from openguild_proto.http.message import Response
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Settings
from openguild_proto.operations.route import route
from openguild_proto.timestamps import from_millis


class Pong(msgspec.Struct, frozen=True, gc=False):
    """The answer to `ping`. `time`: the clock of the answering server."""

    server: str
    time: str


CACHE = (("cache-control", "public, max-age=300"),)


class WellKnown(msgspec.Struct, frozen=True, gc=False):
    """The address of a server for others, and the versions of federation that it speaks."""

    base_url: str
    versions: tuple[str, ...]


def unless_federated(settings: Settings) -> ErrorCode | None:
    """Refuse with 501 if federation is off."""
    return ErrorCode.NOT_IMPLEMENTED if settings.federation.mode is Mode.OFF else None


@route(
    "GET", "/.well-known/openguild", "Show the address for other servers", {200: WellKnown}, auth="none", query=None, client=False,
    refused_by=unless_federated, errors=(ErrorCode.NOT_IMPLEMENTED,), response_headers=("Cache-Control",),
)  # fmt: skip
def well_known(call: Call[None, None]) -> Operation[Response]:
    """Respond with the base URL of the configuration."""
    yield from ()
    return Response.json(WellKnown(call.ctx.service.settings.federation.own_base_url, (VERSION,)), headers=CACHE)


@route(
    "GET", "/federation/v1/keys", "List the server's keys, for verification", {200: KeysDocument}, auth="none",
    query=None, client=False, refused_by=unless_federated, response_headers=("Cache-Control",),
    errors=(ErrorCode.NOT_IMPLEMENTED, ErrorCode.DATABASE_UNAVAILABLE, ErrorCode.OVERLOADED),
)  # fmt: skip
def published_keys(call: Call[None, None]) -> Operation[Response]:
    """List all keys that this server has ever had, signed by those whose private key it holds."""
    service = call.ctx.service
    keys = yield from ListOwnKeys()
    living = {(key.key_id, key.public_key) for key in keys if key.revoked_at is None}
    signers = [signer for signer in service.signers if (signer.key_id, signer.public) in living]
    if not signers:  # its own key is not recorded yet, or refused
        raise Refusal(ErrorCode.NOT_IMPLEMENTED)
    return Response.json(write_keys_document(service.settings.federation.server_name, keys, signers), headers=CACHE)


@route(
    "GET", "/federation/v1/ping", "Check that a signed request is accepted", {200: Pong}, auth="server",
    client=False,
)  # fmt: skip
def ping(call: Call[None, None]) -> Operation[Response]:
    """Respond with the clock of this server."""
    yield from ()
    ctx = call.ctx
    return Response.json(Pong(ctx.service.settings.federation.server_name, from_millis(ctx.wall_ms)))


@route(
    "POST", "/federation/v1/keys/changed", "Report that the sender's keys have changed", {204: None},
    auth="server", client=False, errors=(ErrorCode.KEYS_UNREADABLE,),
)  # fmt: skip
def keys_changed(call: Call[None, None]) -> Operation[Response]:
    """Read the keys of the calling server again, at most once a minute."""
    ctx, caller = call.ctx, call.peer
    if caller is not None and ctx.service.peers.may_try(caller.server, ctx.now):
        try:
            with ctx.service.peers.trying(caller.server):
                found = yield from Discover(server=caller.server)
            ctx.service.peers.put(caller.server, found, ctx.now)
        except PeerUnavailable as failure:
            raise Refusal(ErrorCode.KEYS_UNREADABLE, f"your keys could not be read: {failure.reason}") from None
    return Response.empty()
