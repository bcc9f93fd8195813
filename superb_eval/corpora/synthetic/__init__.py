"""The embedded corpus: synthetic speech for every task, generated on the user's machine from pip packages alone."""

from superb_eval.corpora.synthetic.generate import synthesise as synthesise
