"""Fan-out: one bounded ring of prepared frames per stream, a cursor per subscriber (PROTOCOL 8.4, 8.5)."""
