"""A guild that moves between three real servers while users write, and goes on when its owner is lost."""
