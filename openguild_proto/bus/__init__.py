"""Rules of the buses between replicas: faults, subjects, probes, reconnects, what waits to be published."""
