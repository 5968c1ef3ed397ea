"""A primary is killed under load and its standby promoted; and users read their own writes from a standby."""
