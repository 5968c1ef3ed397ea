"""A chat client for the terminal: `openguild-server chat URL`. It needs the extra `openguild[chat]`."""
