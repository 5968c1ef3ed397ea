"""Two real servers: a user of one is banned from a guild of the other, and learns of it at home (PROTOCOL 16.5.15)."""

from __future__ import annotations

from tests.integration.test_deliveries import NORTH, Pair, pair, servers
from tests.support.waiting import wait_until

__all__ = ["pair", "servers"]


def test_a_banned_user_of_another_server_is_out_and_is_told_why(pair: Pair) -> None:
    guild, bans = f"/guilds/{pair.guild}", f"/guilds/{pair.guild}/bans"
    carol = pair.servers["south.test"].chat().user()
    code = pair.alice.invite(pair.guild)
    carol.ok(carol.post(f"/invites/{code}@{NORTH}/accept"))
    path = f"{guild}/members/{carol.user_id}"
    assert pair.alice.request("PUT", path, json={"role": "moderator"}).status_code == 200
    wait_until(
        lambda: (
            {line["user_id"]: line["role"] for line in pair.bob.ok(pair.bob.get(f"{guild}/members"))}[carol.user_id]
            == "moderator"
        ),
        what="the role at the mirror",
    )
    made = carol.request("PUT", f"{bans}/{pair.bob.user_id}?reason=too%20loud")
    assert (made.status_code, made.json()["username"], made.json()["banned_by"]) == (200, pair.bob.name, carol.user_id)
    wait_until(lambda: pair.bob.get(guild).status_code == 404, what="the end of the membership at home")
    refused = pair.bob.post(f"/invites/{code}@{NORTH}/accept")
    assert (refused.status_code, refused.json()["error"]) == (403, "banned")
    wait_until(lambda: carol.get(bans).json() == [made.json()], what="the ban at the mirror")
    assert pair.alice.get(bans).json() == [made.json()]
    assert carol.request("DELETE", f"{bans}/{pair.bob.user_id}").status_code == 204
    assert pair.bob.post(f"/invites/{code}@{NORTH}/accept").status_code == 200
    wait_until(lambda: carol.get(bans).json() == [], what="the end of the ban at the mirror")
