"""Does the I/O of gateway sockets."""
