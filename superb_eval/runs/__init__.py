"""One run: a task, an upstream and a seed, from configuration to record."""
