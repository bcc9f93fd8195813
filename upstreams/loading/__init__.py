"""Loads weights and modules from files, folders and other packages."""
