"""`--workers N`: several replicas on one host share its port (SO_REUSEPORT), its PostgreSQL and its NATS.

`supervisor` starts and restarts the worker processes, and `child` is the program of a worker. `metrics_relay` and
`openguild_runtime.server.siblings` combine the workers' metrics.
"""
