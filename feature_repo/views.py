"""What is kept: three views, each row stamped with the version that it belongs to.

Factors of two factorisations live in two different spaces and must never meet in one table; the
``version`` of each row is what every reader compares. No view expires (``ttl`` 0): a song's factors
are good for as long as their version is asked for.
"""

from datetime import timedelta

from feature_repo.engine import Array, Float32, Int64, String, feast
from feature_repo.entities import song, user
from feature_repo.sources import (
    song_audio_features_parts,
    song_factors_parts,
    user_factors_parts,
)

_VERSION = feast.Field(
    name="version",
    dtype=String,
    description="Fingerprint of the factorisation, bundle or front end that made this row.",
)

user_factors = feast.FeatureView(
    name="user_factors",
    description="Latent factors of the users, from plays.",
    entities=[user],
    ttl=timedelta(0),
    schema=[
        feast.Field(name="user_id", dtype=String),
        feast.Field(name="factors", dtype=Array(Float32), description="(k,) latent factors."),
        _VERSION,
    ],
    source=user_factors_parts,
)

song_factors = feast.FeatureView(
    name="song_factors",
    description="Latent factors of the songs, from plays or, for songs without plays, from audio.",
    entities=[song],
    ttl=timedelta(0),
    schema=[
        feast.Field(name="song_id", dtype=String),
        feast.Field(name="factors", dtype=Array(Float32), description="(k,) latent factors."),
        feast.Field(
            name="source",
            dtype=String,
            description="'usage' (fitted on plays) or 'audio' (predicted by the encoder).",
        ),
        _VERSION,
    ],
    source=song_factors_parts,
)

song_audio_features = feast.FeatureView(
    name="song_audio_features",
    description="Bag of words of a song's audio, and where its log-mel spectrogram lies.",
    entities=[song],
    ttl=timedelta(0),
    online=False,  # Read for training alone; a clip to be scored brings its own audio.
    schema=[
        feast.Field(name="song_id", dtype=String),
        feast.Field(name="bag_of_words", dtype=Array(Float32), description="(d,) after PCA."),
        feast.Field(name="log_mel_location", dtype=String, description="Shard and position."),
        feast.Field(name="n_frames", dtype=Int64, description="Length of the log-mel, in frames."),
        _VERSION,
    ],
    source=song_audio_features_parts,
)
