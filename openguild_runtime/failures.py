"""What ends a command with exit status 1."""


class CommandFailed(Exception):
    """One line for the operator; never holds a secret."""
