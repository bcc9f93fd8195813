"""Benchmarks: ratios of two sides measured in turn, each after a check that both compute the same."""
