"""Performs the effects of operations."""
