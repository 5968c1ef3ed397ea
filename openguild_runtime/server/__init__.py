"""One serving process: the composition root, its start and its end."""
