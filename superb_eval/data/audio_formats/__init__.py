"""Formats of audio files beyond what libsndfile reads exactly: lengths, cuts, and why a file can't be read."""
