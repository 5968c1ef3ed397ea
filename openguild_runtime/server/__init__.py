"""One serving process: the composition root, startup and shutdown."""
