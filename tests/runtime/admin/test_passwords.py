"""What `admin password` refuses, and what its audit record leaves out."""

from __future__ import annotations

import pytest

from openguild_proto.effects.accounts import FindUser
from openguild_runtime.effects.passwords import PasswordHasher
from tests.runtime.admin.test_socket_commands import Joined, joined
from tests.support.deeds import add_guild, add_user, new_id
from tests.support.passwords import PASSWORD_HASH
from tests.support.peers import PEER, join

pytestmark = pytest.mark.anyio
__all__ = ["joined"]


async def test_a_hash_of_this_servers_form_is_stored(joined: Joined) -> None:
    alice = await add_user(joined.storage, "Alice")
    made = await PasswordHasher().hash("battery staple")
    answer = await joined.ask(command="password", user="alice", password_hash=made)
    assert answer == {"user_id": alice, "username": "Alice", "devices_logged_out": 0}
    user = await joined.storage.perform(FindUser(user_id=alice))
    assert user is not None
    assert user.password_hash == made


@pytest.mark.parametrize(
    "given", [None, "", 1, ["$argon2id$"], "a password", "$argon2i$v=19$m=19456,t=2,p=1$" + "a" * 22 + "$" + "b" * 43]
)
async def test_anything_else_than_a_hash_is_refused(joined: Joined, given: object) -> None:
    alice = await add_user(joined.storage, "alice")
    answer = await joined.ask(command="password", user="alice", password_hash=given)
    assert answer["error"].startswith("password_hash: expected")
    user = await joined.storage.perform(FindUser(user_id=alice))
    assert user is not None
    assert user.password_hash == PASSWORD_HASH


async def test_users_that_are_not_of_this_server_are_refused(joined: Joined) -> None:
    made = await PasswordHasher().hash("battery staple")
    owner = await add_user(joined.storage)
    remote = await join(joined.storage, await add_guild(joined.storage, owner), owner)
    for user, said in (
        (remote, f"belongs to {PEER}: only that server can set their password"),
        (new_id(), "there is no such account"),
        ("nobody", "there is no 'nobody'"),
        (None, "name the user"),
    ):
        assert said in (await joined.ask(command="password", user=user, password_hash=made))["error"]
    joined.storage.failing = True
    answer = await joined.ask(command="password", user=owner, password_hash=made)
    assert answer == {"error": "the database does not respond"}
