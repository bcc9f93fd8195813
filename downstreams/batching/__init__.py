"""Which utterances share a batch, and which of them a step draws."""
