"""The Python client against `openguild-server --chaos-seed`: complete at the end, nothing twice."""
