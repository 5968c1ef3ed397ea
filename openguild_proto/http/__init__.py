"""HTTP/1.1: parsing with h11 inside, strictness rules and header policy."""
