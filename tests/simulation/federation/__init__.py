"""Servers that federate, on simulated time: everything goes wrong between them, then the books are checked."""
