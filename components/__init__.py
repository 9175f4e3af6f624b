"""The steps of the pipelines: one folder, one verb, one KFP component. No arithmetic here."""
