"""Fan-out: bounded rings of prepared frames, with a cursor per subscriber (PROTOCOL 8.4, 8.5)."""
