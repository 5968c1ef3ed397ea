"""A chat in the terminal: `openguild-server chat URL`. Needs the extra `openguild[chat]`."""
