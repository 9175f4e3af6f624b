"""Published datasets' own files -> plays, tracks, tags and clips of the data contract.

``python -m needledrop.datasets million-song --help`` says which files there are.
"""
