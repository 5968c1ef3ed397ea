"""Decisions without I/O: permissions, limits, names, clocks and drains."""
