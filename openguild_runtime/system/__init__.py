"""Small tools around the operating system: tasks, threads, clocks, files, local sockets."""
