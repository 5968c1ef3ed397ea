"""`--workers N`: several replicas on one host share its port (SO_REUSEPORT), its PostgreSQL and its NATS.

`supervisor` starts them and restarts who dies; `child` is what a worker process runs; `siblings` joins their metrics.
"""

from openguild_runtime.workers.siblings import Seat

__all__ = ["Seat"]
