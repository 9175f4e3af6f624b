"""Whom the features are about."""

from feature_repo.engine import feast

user = feast.Entity(
    name="user",
    join_keys=["user_id"],
    value_type=feast.ValueType.STRING,
    description="A listener, by the user_id of the plays.",
)

song = feast.Entity(
    name="song",
    join_keys=["song_id"],
    value_type=feast.ValueType.STRING,
    description="A song, by the song_id of the plays and the tracks table.",
)
