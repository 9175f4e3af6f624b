"""Collaborative filtering: play counts -> confidence -> latent factors of users and songs."""
