"""Readers of the official corpora, in the layouts in which they are published: one module per task."""
