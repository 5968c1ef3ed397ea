"""The reasons why a guild cannot be moved, or not now, shared by both stores (PROTOCOL 16.10)."""

NO_GUILD = "this server does not own the guild"
NO_MEMBER = "no user of that server is a member of the guild: one of them must join first"
MOVING = "it is being moved to another server: cancel that first"
NOT_MOVING = "it is not being moved to that server"
LOST = "a part of its history was lost with a former owner"
BEHIND = "that server has not received the whole log of the guild yet"
