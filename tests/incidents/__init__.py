"""Incidents on real servers, resolved with the commands of docs/runbooks.md: `make incidents`."""
