"""The page at ``/``: drop in a clip, see and hear what it resembles, and who would like it."""
