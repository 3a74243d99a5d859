"""One paper, one file. ``METHODS`` is the single list of what the command line and the model files can name."""

METHODS = {
    "contrastive": "medstrata.methods.contrastive:ContrastiveAutoencoder",
    "dcec": "medstrata.methods.dcec:DCEC",
    "dvc": "medstrata.methods.dvc:DVC",
}
