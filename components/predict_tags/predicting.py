"""Tells tags from what is known of songs, and writes the figures."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from components.journal import Journal
from components.train_paper_model.training import MODEL, RECORD
from needledrop.artifacts import read_json, write_json
from needledrop.audio.bag_of_words import BagOfWords
from needledrop.audio.feature_store import FeatureStore
from needledrop.encoders.model import FactorModel
from needledrop.encoders.saved import load_model
from needledrop.encoders.training import torch_device
from needledrop.errors import InputError
from needledrop.factors.wmf import Factors
from needledrop.page import counted
from needledrop.plays.split import Split
from needledrop.plays.tags import Tags, read_tags
from needledrop.plays.tracks import Tracks
from needledrop.plays.triplets import Plays
from needledrop.ranking.paper import TITLES
from needledrop.ranking.tag_prediction import TagConfig, TagFigures, predict_tags

KNOWN, TEST = "songs that the factors were learned from", "test songs"


def predict(
    tags_source: str,
    model_paths: Sequence[Path],
    tracks_path: Path,
    factors_path: Path,
    features_path: Path,
    plays_path: Path,
    split_path: Path,
    config: TagConfig,
    device: str,
    out: Path,
    journal: Journal,
) -> None:
    """Write the figures of both groups of songs, or why there are none; nothing without tags.

    Networks hear the test songs on the device: auto, cpu or cuda.
    """
    if not tags_source:
        journal.say("no tags: nothing to tell")
        write_json(out, {})
        return
    tags = read_tags(tags_source, Tracks.load(tracks_path).song_of_track())
    features = FeatureStore.open(features_path / "features.json")
    words, factors = BagOfWords.load(features_path / "bag_of_words"), Factors.load(factors_path)
    journal.say(tags.in_short())

    def bags(ids: NDArray[np.str_]) -> NDArray[np.float32]:
        return words.transform(map(features.mfcc, ids.tolist()))

    known = _audible(factors.song_ids, features)
    rows = np.searchsorted(factors.song_ids, known)
    groups = {KNOWN: (known, {"bag of words": bags(known), "factors": factors.song_factors[rows]})}
    test = _audible(Split.load(split_path).test, features)
    usage = factors.fold_in_songs(Plays.load(plays_path).of_songs(test.tolist()))
    clips = features.clips(test.tolist())
    heard = {
        f"factors by {title}": model.factors(clips)
        for title, model in _first_seeds(model_paths, torch_device(device, "device")).items()
    }
    groups[TEST] = test, {"bag of words": bags(test), **heard, "factors (usage)": usage}
    results = {
        name: _figures(name, ids, told_from, tags, config, journal)
        for name, (ids, told_from) in groups.items()
    }
    write_json(
        out, {name: one if isinstance(one, str) else asdict(one) for name, one in results.items()}
    )


def _figures(
    name: str,
    song_ids: NDArray[np.str_],
    told_from: Mapping[str, NDArray[np.floating]],
    tags: Tags,
    config: TagConfig,
    journal: Journal,
) -> TagFigures | str:
    """Return the figures; or why there are none, where songs or tags are too few."""
    frequent = tags.most_frequent(config.n_tags, song_ids)
    has_tag, n_done = tags.of_songs(frequent, song_ids), itertools.count(1)
    n_told = len(frequent) * len(told_from)  # at most: rare tags are left out
    try:
        with journal.progress(f"tags of {name}", n_told, "tag") as advance:
            result = predict_tags(
                told_from, has_tag, frequent, config, lambda: advance(next(n_done), "")
            )
    except InputError as error:
        journal.say(f"{name}: left out: {error}")
        return str(error)
    n_tags = counted(len(result.tags), "tag")
    for source, mean in result.means.items():
        journal.say(f"{name}, {n_tags}: {source}: mean AUC {mean.mean:.4f}")
        group = "test" if name == TEST else "known"
        journal.record({f"{group}_{re.sub(r'[^a-z0-9]+', '_', source.lower())}_auc": mean.mean})
    return result


def _audible(song_ids: NDArray[np.str_], features: FeatureStore) -> NDArray[np.str_]:
    return np.array([song for song in song_ids.tolist() if song in features], dtype=np.str_)


def _first_seeds(model_paths: Sequence[Path], device: torch.device) -> dict[str, FactorModel]:
    """Return the models that say factors, with their first seed, by title."""
    models = {}
    for path in model_paths:
        name, _, seed = read_json(path / RECORD)["key"].partition("#")
        model = load_model(path / MODEL, device) if seed == "0" else None
        if isinstance(model, FactorModel):
            models[name] = model
    return {TITLES[name]: models[name] for name in TITLES if name in models}
