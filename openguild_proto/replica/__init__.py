"""What one replica does between the log and its sockets, without I/O."""
