"""The pipelines: which step follows which, with which settings. No arithmetic here."""
