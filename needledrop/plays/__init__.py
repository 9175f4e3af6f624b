"""Listening data: plays, tracks, and the split of the songs into parts."""
