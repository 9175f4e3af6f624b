"""A generated catalogue with known tastes: the default that a newcomer's first run works on.

Songs are composed and synthesised in NumPy, and listeners are simulated whose tastes depend on
timbre, on temporal structure, and on popularity and scenes that audio can't show. The files are
those of the data contract, so the rest of needledrop can't tell them from anyone's own.

``python -m needledrop.demo OUT`` writes it, ``python -m needledrop.demo plays`` plays alone by the
million (:mod:`needledrop.demo.stand_in`); :func:`needledrop.demo.world.world_from_config` gives
the ground truth to who wants to check what a model has learnt.
"""
