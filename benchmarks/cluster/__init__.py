"""`make bench-cluster`: appends, replicas, workers, storms and outages, with real PostgreSQL and NATS."""
