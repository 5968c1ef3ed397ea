"""What servers say to each other: names, keys, signed requests, and what a server accepts of another (PROTOCOL 16)."""
