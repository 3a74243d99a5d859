"""The stages in order, each a file in the run folder: scan, plan, decode, fit, assign, explain, report."""
