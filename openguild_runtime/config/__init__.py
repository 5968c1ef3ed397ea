"""The configuration: sections, layers, files and their faults."""
