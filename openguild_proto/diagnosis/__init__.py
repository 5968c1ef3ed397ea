"""A replica's records for its operator: finished requests, log lines of requests, busy users, closed readers."""
