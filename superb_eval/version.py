"""The versions of the package and of its engine, in a file that a build can read without importing anything."""

__version__ = "0.2.0"

ENGINE_VERSION = 1
"""The version of what every figure depends on: corpora and audio, extraction, training, selection, scoring. Raised
when a change there changes the figures of a task; `tests/test_pinned_figures.py` fails until it is. What changes one
task's figures alone raises that task's `version`."""
