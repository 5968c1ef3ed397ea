"""Struct types of every body and socket message; the OpenAPI document is made from them."""
