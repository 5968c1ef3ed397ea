"""Decides which effects a standby of the store may perform."""

from __future__ import annotations

from typing import Any

from openguild_proto.effects.base import StorageEffect
from openguild_proto.effects.channels import FindChannelAccess


def may_use_standby(effect: StorageEffect[Any]) -> bool:
    """Return whether a standby may answer. The access check of a post may not, because a standby read waits for replay."""
    return effect.on_standby and not (isinstance(effect, FindChannelAccess) and effect.page is None)
