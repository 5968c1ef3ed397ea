"""What a replica keeps in memory for its operator: finished requests, log lines of requests, busy users, closed readers."""
