"""One file a command: `add_parser` declares it, `run` does it and returns the exit status."""
