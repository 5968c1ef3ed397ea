"""A log as a reader of it sees it: its sequence, what is missing, and whether it is still the same log."""
