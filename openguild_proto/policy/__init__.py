"""Decisions without I/O: permissions, limits, names, clocks, drains."""
