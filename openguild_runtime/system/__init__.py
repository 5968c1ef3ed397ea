"""Small tools around the operating system: background tasks, threads, clocks, files, Unix sockets."""
