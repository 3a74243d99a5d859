"""One paper, one file. ``METHODS`` is the single list of what the command line and the model files can name."""

METHODS = {
    "auto": "medstrata.methods.fusion:Fusion",
    "contrastive": "medstrata.methods.contrastive:ContrastiveAutoencoder",
    "dcec": "medstrata.methods.dcec:DCEC",
    "deepmcat": "medstrata.methods.deepmcat:DeepMCAT",
    "dvc": "medstrata.methods.dvc:DVC",
    "features": "medstrata.methods.frozen:FrozenFeatures",
    "pca": "medstrata.methods.principal:PrincipalComponents",
}
