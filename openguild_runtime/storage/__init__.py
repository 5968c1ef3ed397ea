"""The stores: PostgreSQL, or memory if it is configured (PROTOCOL 11.4.4)."""
