"""One replica between the log and its sockets, without I/O."""
