"""Guilds in a store that other servers mirror."""

from __future__ import annotations

from openguild_proto.effects.guilds import InsertInvite
from openguild_proto.effects.mirrors import JoinFromServer, RemoteJoin
from openguild_proto.mirror_records import RemoteUser
from openguild_proto.records import Author, InviteRecord
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, new_id

PEER = "peer.test"


async def join(
    storage: Storage, guild_id: str, owner: str, peer: str = PEER, user_id: str | None = None, now_ms: int = NOW
) -> str:
    """Let a user of the peer join by an invite; return their id. From now on the peer mirrors the guild."""
    user_id = user_id or new_id()
    code = new_id()[:12]
    invite = InsertInvite(
        author=Author(owner), code=code, guild_id=guild_id, max_uses=None, expires_at_ms=None, now_ms=now_ms
    )
    assert isinstance(await storage.perform(invite), InviteRecord)
    joined = await storage.perform(
        JoinFromServer(
            peer=peer,
            user=RemoteUser(user_id, f"u{user_id[:8]}"),
            code=code,
            role="member",
            now_ms=now_ms,
            limit=1_000,
            wants_snapshot=True,
        )
    )
    assert isinstance(joined, RemoteJoin)
    return user_id
