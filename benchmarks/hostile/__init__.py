"""Malicious peers: their cost for the server, and their effect on other clients."""
