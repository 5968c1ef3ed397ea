"""The Structs of all bodies and socket messages, and their decoding. The OpenAPI document is generated from them."""
