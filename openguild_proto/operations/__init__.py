"""The server's behaviour: one module per noun, each operation a generator that yields effects."""
