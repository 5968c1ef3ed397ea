"""Drives the gateway's sockets."""
