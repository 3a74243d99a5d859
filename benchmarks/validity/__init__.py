"""Benchmarks of what is said about whether clusters are real."""
