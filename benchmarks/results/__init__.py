"""The benchmark of the results page: data sets, peers and tables."""
