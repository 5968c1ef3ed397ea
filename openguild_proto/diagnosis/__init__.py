"""Memory of a replica for its operator: finished requests, log lines of requests, busy users, closed readers."""
