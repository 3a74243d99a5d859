"""Studies and benchmarks that print tables; run one with ``python -m benchmarks.NAME``."""
