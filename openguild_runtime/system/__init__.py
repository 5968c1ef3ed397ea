"""Small tools for background tasks, threads, clocks, files and Unix sockets."""
