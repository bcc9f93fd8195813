"""The command line, a file for each group of commands. Heavy imports stay inside commands: `--help` answers at once."""
