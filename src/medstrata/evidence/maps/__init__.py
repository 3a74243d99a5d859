"""Maps of what in an image speaks for its cluster: the rules, and their files and pictures."""
