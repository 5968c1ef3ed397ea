"""Fan-out: one bounded ring of prepared frames per stream, a cursor per subscriber (architecture, "One ring per channel")."""
