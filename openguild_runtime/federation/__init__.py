"""Connections to other servers. What they say, and whether it counts, is decided in `openguild_proto.federation`."""
