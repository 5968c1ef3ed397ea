"""Peers that mean no good: what they cost the server, and what its other clients notice."""
