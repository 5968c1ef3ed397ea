"""A log: as a reader sees it (its sequence, what is missing, whether it is still the same log), and the turns of what waits to
be in it."""
