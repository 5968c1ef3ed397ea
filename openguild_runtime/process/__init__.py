"""Signals, standard streams and the shutdown of a process."""
