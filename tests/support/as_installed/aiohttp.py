"""Stands before the real one for servers in tests: nats-py imports it where it is found, a tenth of a second of each start.

It comes with the developers' tools; where only the server is installed there is none.
"""

raise ImportError("not installed with the server")
