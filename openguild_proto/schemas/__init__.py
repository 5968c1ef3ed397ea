"""The Structs of all bodies and socket messages, from which the OpenAPI document is built, and their decoding."""
