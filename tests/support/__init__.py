"""Helpers for tests: server processes, a blocking chat client, conditions with a deadline."""
