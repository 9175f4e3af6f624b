"""Ranking held-out songs for every listener, exactly, and measuring how well that goes."""
