"""The Python client against `openguild-server --chaos-seed`: level at the end, nothing twice."""
