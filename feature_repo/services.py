"""Which features are read together, and all that is registered with Feast."""

from feature_repo.engine import feast
from feature_repo.entities import song, user
from feature_repo.views import (
    listener_plays,
    song_audio_features,
    song_availability,
    song_factors,
    song_facts,
    user_factors,
)

encoder_training = feast.FeatureService(
    name="encoder_training",
    description="What an encoder learns from: a song's audio features, and its factors as target.",
    features=[song_factors, song_audio_features],
)

song_serving = feast.FeatureService(
    name="song_serving",
    description="Factors and facts of the songs, those without plays included.",
    features=[song_factors, song_facts, song_availability],
)

user_serving = feast.FeatureService(
    name="user_serving",
    description="Factors of the users.",
    features=[user_factors],
)

__all__ = [
    "encoder_training",
    "listener_plays",
    "song",
    "song_audio_features",
    "song_availability",
    "song_factors",
    "song_facts",
    "song_serving",
    "user",
    "user_factors",
    "user_serving",
]
