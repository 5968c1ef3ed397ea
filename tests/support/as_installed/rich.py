"""Stands before the real one for servers in tests: structlog imports it where it is found, a third of a server's start.

It comes with the developers' tools; where only the server is installed there is none.
"""

raise ImportError("not installed with the server")
