"""Administration of a running server: the admin socket and configuration reload."""
