"""Benchmarks: taut beside its peers, and taut against posteriors whose answer is known."""
