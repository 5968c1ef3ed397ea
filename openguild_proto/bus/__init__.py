"""Rules of the buses between replicas: faults, subjects, probes, reconnects and the publish queue."""
