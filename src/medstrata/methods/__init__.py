"""One paper, one file. ``METHODS`` is the single list of what the command line and the model files can name."""

METHODS = {"dcec": "medstrata.methods.dcec:DCEC"}
