"""Shadows the real package for servers in tests: structlog imports it if installed, which takes a third of a server's start.

Only the developers' tools depend on it; an installed server has none.
"""

raise ImportError("not installed with the server")
