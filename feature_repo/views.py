"""What is kept: six views, each row stamped with the version that it belongs to.

Factors of two factorisations live in two different spaces and must never meet in one table; the
``version`` of each row is what every reader compares. No view expires (``ttl`` 0): a song's factors
are good for as long as their version is asked for.

Where a song may be heard changes at any time and whatever version is served: ``song_availability``
has one version for ever.
"""

from datetime import timedelta

from feature_repo.engine import Array, Bool, Float32, Int64, String, feast
from feature_repo.entities import song, user
from feature_repo.sources import (
    listener_plays_parts,
    song_audio_features_parts,
    song_availability_parts,
    song_factors_parts,
    song_facts_parts,
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

listener_plays = feast.FeatureView(
    name="listener_plays",
    description="What each listener had played when the version was trained.",
    entities=[user],
    ttl=timedelta(0),
    online=False,  # Read all at once, as columns; a million listeners' rows would fill Redis.
    schema=[
        feast.Field(name="user_id", dtype=String),
        feast.Field(name="song_ids", dtype=Array(String), description="The songs, each once."),
        feast.Field(name="play_counts", dtype=Array(Int64), description="How often each."),
        _VERSION,
    ],
    source=listener_plays_parts,
)

song_facts = feast.FeatureView(
    name="song_facts",
    description="What is known about a song besides its sound: what filters and answers go by.",
    entities=[song],
    ttl=timedelta(0),
    schema=[
        feast.Field(name="song_id", dtype=String),
        feast.Field(name="artist_id", dtype=String, description="Empty where unknown."),
        feast.Field(name="artist_name", dtype=String, description="Empty where unknown."),
        feast.Field(name="title", dtype=String, description="Empty where unknown."),
        feast.Field(name="year", dtype=Int64, description="Of release; 0 where unknown."),
        feast.Field(name="n_plays", dtype=Int64, description="Of all listeners; 0 for a new song."),
        _VERSION,
    ],
    source=song_facts_parts,
)

song_availability = feast.FeatureView(
    name="song_availability",
    description="Whether, from when and where a song may be recommended; no row: everywhere, now.",
    entities=[song],
    ttl=timedelta(0),
    schema=[
        feast.Field(name="song_id", dtype=String),
        feast.Field(name="is_withdrawn", dtype=Bool),
        feast.Field(
            name="available_from",
            dtype=Int64,
            description="Seconds since 1970 in UTC; 0 for a song that is out already.",
        ),
        feast.Field(
            name="blocked_regions",
            dtype=String,
            description="ISO 3166 two-letter codes, sorted, a blank between; empty: nowhere.",
        ),
        feast.Field(
            name="changed_at",
            dtype=Int64,
            description="Microseconds since 1970: the time that was given for the last change.",
        ),
        _VERSION,
    ],
    source=song_availability_parts,
)
