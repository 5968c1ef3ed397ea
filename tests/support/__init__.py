"""Helpers that tests build with: server processes, a blocking chat client, conditions with a deadline."""
