"""Servers that federate, on simulated time, under all kinds of faults; then the final checks."""
