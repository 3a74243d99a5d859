"""Whether what the package says about its own clusters is true: measured on planted and on real sets."""
