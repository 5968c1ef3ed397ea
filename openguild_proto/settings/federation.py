"""The federation settings of the core: limits for requests of each other server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from openguild_proto.settings.setting import Count, Setting, Window


@dataclass(frozen=True, kw_only=True)
class FederationSettings:
    """`federation.*`: budgets of each other server, shared by replicas (PROTOCOL 16.4)."""

    max_requests_per_server_per_window: Annotated[Count, Setting("requests of one server", live=True)] = 30_000
    max_megabytes_per_server_per_window: Annotated[
        Count, Setting("megabytes in the bodies of requests of one server", live=True)
    ] = 1_024
    max_proposals_per_server_per_window: Annotated[
        Count, Setting("posts, changes and forwarded requests of the users of one server", live=True)
    ] = 12_000
    max_joins_per_server_per_window: Annotated[Count, Setting("joins of users of one server", live=True)] = 600
    max_owner_reads_per_user_per_window: Annotated[
        Count, Setting("reads of one user that are passed on to owners of mirrored guilds", live=True)
    ] = 600
    max_invites_per_server_per_window: Annotated[Count, Setting("invites that one server looks at", live=True)] = 600
    max_discoveries_per_window: Annotated[
        Count, Setting("servers whose keys are read because they, or somebody in their name, asked", live=True)
    ] = 120
    window_secs: Annotated[Window, Setting("the window of these limits", live=True)] = 60
