"""Deciding whether a candidate becomes the champion, and keeping every version."""
