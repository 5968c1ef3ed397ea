"""The configuration: sections, layers, files and error texts."""
