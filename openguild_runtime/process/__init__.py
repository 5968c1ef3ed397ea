"""How a process starts, hears signals and ends."""
