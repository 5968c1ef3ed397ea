"""The SQL of the first step, by what it makes."""
