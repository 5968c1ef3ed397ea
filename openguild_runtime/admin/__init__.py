"""What an operator asks of a running server, and what may change while it serves."""
