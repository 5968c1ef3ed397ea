"""The I/O of one replica: performs the actions of the core's `Replica` between the log and the sockets."""
