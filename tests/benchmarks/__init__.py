"""Benchmarks: ratios measured side by side in one run, each after a check that both sides compute the same."""
