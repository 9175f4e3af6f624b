"""The feature store: what needledrop keeps about users and songs, in Feast.

:class:`feature_repo.store.FactorStore` is the one door to it. Nothing here imports Feast until a
store is opened.
"""
