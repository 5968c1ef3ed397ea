"""Access tokens, refresh families and passwords."""
