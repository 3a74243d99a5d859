"""Is it true? Scores, typicality, maps and their tests. Only here are labels ever read."""
