"""Connections to other servers. `openguild_proto.federation` decides what to send and what to accept."""
