"""A guild that moves between three real servers while users write, and continues after its owner is lost."""
