"""The behaviour of the server: one module per noun; each operation is a generator that yields effects."""
