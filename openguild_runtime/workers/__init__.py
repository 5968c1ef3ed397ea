"""`--workers N`: several replicas on one host share its port (SO_REUSEPORT), its PostgreSQL and its NATS.

`supervisor` starts them and restarts one that dies; `child` is what a worker process runs. `openguild_runtime.server.siblings`
joins their metrics.
"""
