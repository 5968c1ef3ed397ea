"""The server's public keys, with which anybody verifies its events (PROTOCOL 6.8)."""

from __future__ import annotations

from openguild_proto.canonical.keys import encode_unpadded
from openguild_proto.effects.base import Operation
from openguild_proto.http.message import Response
from openguild_proto.operations.call import Call
from openguild_proto.operations.route import route
from openguild_proto.schemas.messages import ServerKeys


@route(
    "GET", "/server/keys", "List the keys that sign events", {200: ServerKeys}, auth="none", query=None, client=False
)
def server_keys(call: Call[None, None]) -> Operation[Response]:
    """Show the keys by key id; none if this server does not sign its events."""
    yield from ()
    service = call.ctx.service
    signer = service.signer
    keys = {} if signer is None else {f"ed25519:{signer.key_id}": encode_unpadded(signer.public)}
    return Response.json(ServerKeys(service.settings.server_name, keys))
