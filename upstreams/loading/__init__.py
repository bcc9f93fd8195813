"""Weights and modules from files, folders and other packages."""
