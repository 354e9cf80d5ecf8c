"""The operator's side: the command line, the development run, the demonstration."""
