"""Decides with which servers this one federates, and with which restrictions (PROTOCOL 16.4)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

import msgspec

from openguild_proto.effects.federation import Peer, PublishedKey, Standing
from openguild_proto.federation.server_names import authority_of
from openguild_proto.settings.federation import FederationSettings

VERSION = "v1"
OWNER_LOST_SECS = 86_400  # ours: enough time to restore a backup
NOT_TRUSTED = "it is not one of the trusted servers"
BY_CONFIGURATION = "by the configuration of this server"
OFF = "federation is off on this server"


class Mode(Enum):
    """`federation.mode`."""

    OFF = "off"
    PINNED = "pinned"  # only servers of `trusted_servers` and those that the operator has allowed
    OPEN = "open"  # every server that is not denied


class Verdict(NamedTuple):
    """The policy for one server. `reason` is shown to affected users."""

    standing: Standing
    reason: str = ""


class FederationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The federation settings of the core."""

    mode: Mode = Mode.OFF
    server_name: str = "localhost"
    base_url: str = ""  # at which other servers reach this one; "": https://<server name>
    pinned: Mapping[str, tuple[PublishedKey, ...]] = {}  # by server
    configured: Mapping[str, Standing] = {}  # by server
    addresses: Mapping[str, str] = {}  # base URL by server, instead of discovery
    allow_private_addresses: bool = False
    take_guilds_from: frozenset[str] = frozenset()  # servers from which this one accepts guilds
    owner_lost_after_secs: int = OWNER_LOST_SECS  # without contact
    budgets: FederationSettings = FederationSettings()

    def __hash__(self) -> int:
        """Hash the hashable fields."""
        return hash((self.mode, self.server_name, self.base_url))

    @property
    def is_on(self) -> bool:
        """Whether this server federates."""
        return self.mode is not Mode.OFF

    @property
    def own_base_url(self) -> str:
        """The base URL at which other servers reach this one."""
        return self.base_url or f"https://{self.server_name}"

    @property
    def authorities(self) -> tuple[str, ...]:
        """The authorities that signed requests to this server may name."""
        return tuple(dict.fromkeys((authority_of(self.own_base_url), self.server_name)))


_SEVEREST = {Standing.DENY: 2, Standing.QUARANTINE: 1, Standing.ALLOW: 0}


def judge(policy: FederationPolicy, server: str, peer: Peer | None, guild_id: str | None = None) -> Verdict:
    """Return the policy for a server: the strictest of the configuration and the operator's decisions.

    `guild_id`: decisions about this guild apply too.
    """
    if policy.mode is Mode.OFF:
        return Verdict(Standing.DENY, OFF)
    found: list[Verdict] = []
    if (standing := policy.configured.get(server)) is not None:
        found.append(Verdict(standing, BY_CONFIGURATION))
    found += [
        Verdict(ruling.standing, ruling.reason)
        for ruling in (peer.rulings if peer is not None else ())
        if ruling.guild_id is None or ruling.guild_id == guild_id
    ]
    general = policy.mode is Mode.OPEN or server in policy.pinned or any(v.standing is Standing.ALLOW for v in found)
    if not general:
        found.append(Verdict(Standing.DENY, NOT_TRUSTED))
    return max(found, key=lambda verdict: _SEVEREST[verdict.standing], default=Verdict(Standing.ALLOW))
