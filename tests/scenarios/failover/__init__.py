"""A primary is killed under load, and its standby promoted; and reads of one's own writes from a standby."""
