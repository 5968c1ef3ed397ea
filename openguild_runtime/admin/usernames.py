"""User names for IDs and IDs for user names: operators use names, sockets have IDs."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec

from openguild_proto.effects.accounts import FindUserByName, FindUsernames
from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.schemas.decode import parse_uuid
from openguild_proto.sessions.passwords import normalise_username
from openguild_runtime.admin.scope import Refused, Request, Response, user_of
from openguild_runtime.storage.base import Storage

LOOK_SECS = 1.0  # short, because these commands are needed most while the database is slow
FIELDS = {"user_id": "username", "slowest_user": "slowest_username"}  # in lines: the ID's field and the name's


async def resolve_user(storage: Storage, request: Request) -> Request:
    """Return the request with the user's ID in place of the name. Raises Refused, for example for an unknown user."""
    user = user_of(request)
    if user is None:
        return request
    user_id = parse_uuid(user)
    if user_id is None:
        name, key = normalise_username(user)
        try:
            with anyio.fail_after(LOOK_SECS):
                found = await storage.perform(FindUserByName(username_key=key))
        except (StorageUnavailable, TimeoutError):
            raise Refused(
                "user: names cannot be looked up because the database does not respond: give the id"
            ) from None
        if found is None:
            raise Refused(f"user: there is no {name!r}")
        user_id = found.user_id
    return request | {"user": user_id}


async def usernames(storage: Storage, user_ids: set[str]) -> dict[str, str]:
    """Return the names by ID, without unknown users; empty while the database does not answer."""
    known = tuple(sorted(user_id for user_id in user_ids if parse_uuid(user_id) is not None))
    if not known:
        return {}
    try:
        with anyio.fail_after(LOOK_SECS):
            return await storage.perform(FindUsernames(user_ids=known))
    except (StorageUnavailable, TimeoutError):
        return {}


async def with_usernames(storage: Storage, response: Response) -> Response:
    """Return the response with the names added to the lines of its lists."""
    response = msgspec.to_builtins(response)
    lines: list[dict[str, Any]] = [
        line for value in response.values() if isinstance(value, list) for line in value if isinstance(line, dict)
    ]
    names = await usernames(storage, {line[field] for line in lines for field in FIELDS if line.get(field)})
    for line in lines:
        line |= {to: names[line[field]] for field, to in FIELDS.items() if line.get(field) in names}
    return response
