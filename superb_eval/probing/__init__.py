"""Heads on features: how they are trained, chosen on dev and tested."""
