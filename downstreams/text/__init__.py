"""Vocabularies, slots and beam search."""
