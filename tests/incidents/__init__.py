"""Incidents caused on real servers, and walked with the commands of docs/runbooks.md: `make incidents`."""
