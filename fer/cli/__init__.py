"""The command line: one module a command, Hydra's start, and errors in one line."""
