"""WebSocket (RFC 6455): handshake, frames, bounded reassembly (with wsproto), close codes."""
