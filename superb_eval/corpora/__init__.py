"""Corpora as manifests: readers of official layouts and of manifest folders, and the embedded synthetic corpus."""
