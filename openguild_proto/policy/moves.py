"""The reasons why a guild cannot be moved, or not now, shared by both stores (PROTOCOL 16.10)."""

NO_GUILD = "it is no guild of this server"
NO_MEMBER = "no user of that server is a member: one of them must join first"
MOVING = "it is being moved to another server: cancel that first"
NOT_MOVING = "it is not being moved there"
LOST = "a part of its history was lost with a former owner"
BEHIND = "that server has not got all of the guild's log yet"
