"""Canonical events: the hash format, keys and signatures (PROTOCOL 6)."""
