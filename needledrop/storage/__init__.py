"""Where things are kept: a folder, or an object store behind a URI, with the same promises.

Everything that outlives a step (clips, feature shards, checkpoints, registered versions) is read
and written through a :class:`needledrop.storage.place.Place`. A path gives a folder,
``s3://bucket/prefix`` an object store: :func:`needledrop.storage.opening.place_at` tells which.
"""
