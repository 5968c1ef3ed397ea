"""The gateway, without I/O, for both sides: one socket that follows many logs and carries commands (PROTOCOL 15).

`GatewayServer` is one socket on the server, `Feeds` the state that all sockets of a process share, `GatewayClient` the client.
"""
