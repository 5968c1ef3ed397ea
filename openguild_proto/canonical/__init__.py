"""Canonical events: the hash format, keys and signatures (CONTRACT 10)."""
