"""Recipes, shipped as package data so that an installed copy finds them; this package holds no code."""
