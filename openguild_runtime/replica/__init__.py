"""One replica between the log and its sockets: it carries out the core's actions."""
