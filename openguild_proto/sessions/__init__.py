"""Access tokens, refresh token families and passwords."""
