"""Which utterances share a batch, and which of its frames count."""
