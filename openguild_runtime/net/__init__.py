"""Sockets: accepting, reading, writing, deadlines, and the flush of the fan-out."""
