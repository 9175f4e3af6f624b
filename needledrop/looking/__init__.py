"""A page to look at what a version has learned: its factors, neighbours and a map of its songs."""
