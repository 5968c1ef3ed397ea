"""HTTP/1.1: parsing (with h11), strictness rules, header policy, responses."""
