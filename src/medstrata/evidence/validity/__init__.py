"""Are the clusters real? Stability over refits, the null of images without groups, the number of clusters, verdicts."""
