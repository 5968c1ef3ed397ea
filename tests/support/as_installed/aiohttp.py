"""Shadows the real package for servers in tests: nats-py imports it if installed, which takes a tenth of a second per start.

Only the developers' tools depend on it; an installed server has none.
"""

raise ImportError("not installed with the server")
