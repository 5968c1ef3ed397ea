"""Rules between servers: names, keys, signed requests, and what a server accepts from another (PROTOCOL 16)."""
