"""The federation settings of the core: limits for requests of each other server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from openguild_proto.settings.setting import Count, Setting, Window


@dataclass(frozen=True, kw_only=True)
class FederationSettings:
    """`federation.*`: budgets of each other server, shared by replicas (PROTOCOL 16.4)."""

    max_requests_per_server_per_window: Annotated[Count, Setting("requests from one server per window", live=True)] = (
        30_000
    )
    max_megabytes_per_server_per_window: Annotated[
        Count, Setting("megabytes of request bodies from one server per window", live=True)
    ] = 1_024
    max_proposals_per_server_per_window: Annotated[
        Count, Setting("posts, changes and forwarded requests by users of one server per window", live=True)
    ] = 12_000
    max_joins_per_server_per_window: Annotated[Count, Setting("joins by users of one server per window", live=True)] = (
        600
    )
    max_owner_reads_per_user_per_window: Annotated[
        Count, Setting("reads by one user that are forwarded to owners of mirrored guilds, per window", live=True)
    ] = 600
    max_invites_per_server_per_window: Annotated[
        Count, Setting("invites that one server looks up per window", live=True)
    ] = 600
    max_discoveries_per_window: Annotated[
        Count, Setting("unknown servers that are looked up because of their requests, per window", live=True)
    ] = 120
    window_secs: Annotated[Window, Setting("length of the window for these limits", live=True)] = 60
