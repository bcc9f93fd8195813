"""Corpora: official layouts, manifest folders and the embedded synthetic default, all handed on as manifests."""
