"""The embedded corpus: synthetic speech for every task, generated on the user's machine from pip packages alone."""

from .generate import synthesise as synthesise
