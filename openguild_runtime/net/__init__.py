"""Sockets: accept, read, write, time, and the flush of the fan-out."""
