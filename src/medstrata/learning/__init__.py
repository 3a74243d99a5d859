"""Pixels to vectors: networks, k-means, neighbour graphs, training. Knows no files of images and no labels."""
