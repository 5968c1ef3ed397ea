"""The gateway: one socket that follows many logs and carries commands, without I/O, for both sides (PROTOCOL 15).

`GatewayServer` is one socket on the server, `Feeds` the logs that all sockets of a process share, `GatewayClient` the client.
"""
