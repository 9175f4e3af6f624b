"""Evaluates all models of the paper on the same test songs and the same listeners."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.journal import Journal
from components.train_paper_model.training import MODEL, RECORD
from needledrop.artifacts import read_json
from needledrop.audio.feature_store import FeatureStore
from needledrop.encoders.chance import ChanceModel
from needledrop.encoders.oracle import OracleModel
from needledrop.encoders.saved import load_model
from needledrop.encoders.training import torch_device
from needledrop.factors.wmf import Factors
from needledrop.page import counted
from needledrop.plays.split import Split
from needledrop.plays.triplets import Plays
from needledrop.ranking.evaluate import EvaluationConfig, evaluate
from needledrop.ranking.held_out import HeldOutSongs
from needledrop.ranking.paper import TITLES, SplitResult, Training, key_of, results_from_report
from needledrop.ranking.report import Estimate, Report


def evaluate_models(
    model_paths: Sequence[Path],
    factors_path: Path,
    features_path: Path,
    plays_path: Path,
    split_path: Path,
    n_seeds: int,
    config: EvaluationConfig,
    device: str,
    journal: Journal,
) -> tuple[SplitResult, Report]:
    """Rank all test songs for every listener with each model.

    Args:
        model_paths: folders of fitted models.
        factors_path, features_path, plays_path, split_path: of the steps before.
        n_seeds: of the random order.
        config: of the intervals.
        device: auto, cpu or cuda; where networks hear the test songs.
        journal: is told.

    Returns:
        The figures over the seeds, and the evaluation with each seed by itself.

    Raises:
        ConfigRejected: CUDA is asked for and not there.
    """
    heard_on = torch_device(device, "device")
    plays, split, factors = (
        Plays.load(plays_path),
        Split.load(split_path),
        Factors.load(factors_path),
    )
    features = FeatureStore.open(features_path / "features.json")
    held_out = HeldOutSongs.select(split.test.tolist(), plays, factors, features)
    known_plays = plays.of_songs(factors.song_ids.tolist())
    scores = {
        key_of("random", seed): held_out.scores_of(ChanceModel(seed), known_plays)
        for seed in range(n_seeds)
    }
    trainings = {}
    with journal.progress("models hear the test songs", len(model_paths), "model") as advance:
        for number, path in enumerate(sorted(model_paths), start=1):
            record = read_json(path / RECORD)
            scores[record["key"]] = held_out.scores_of(
                load_model(path / MODEL, heard_on), known_plays
            )
            trainings[record["key"]] = Training(**record["training"])
            advance(number, record["key"])
    scores[key_of("oracle", 0)] = held_out.scores_of(OracleModel(), known_plays)
    report = evaluate(
        dict(sorted(scores.items())),
        held_out.relevant,
        held_out.song_ids,
        held_out.popularity,
        config,
    )
    models, differences = results_from_report(report, trainings)
    result = SplitResult(
        split.kind,
        int(np.isin(split.train, features.song_ids).sum()),
        int(np.isin(split.validation, features.song_ids).sum()),
        report.n_songs,
        report.n_users,
        factors.n_factors,
        models,
        differences,
    )
    _tell(result, journal)
    return result, report


def _tell(result: SplitResult, journal: Journal) -> None:
    journal.say(
        f"{result.kind} split: {counted(result.n_test_songs, 'test song')}, "
        f"{counted(result.n_users, 'listener')}"
    )
    journal.say(f"{'model':<24}{'mAP@500':>28}{'AUC':>9}{'x random':>10}{'oracle':>8}")
    for name, one in result.models.items():
        precision = one.map_500
        estimate = Estimate(precision.mean, precision.low, precision.high, result.n_users)
        auc, to_random, of_oracle = (
            "none" if value is None else format(value, form)
            for value, form in (
                (one.auc.mean, ".4f"),
                (one.map_to_random, ".2f"),
                (one.map_of_oracle, ".1%"),
            )
        )
        journal.say(
            f"{TITLES[name]:<24}{estimate.in_brackets():>28}{auc:>9}{to_random:>10}{of_oracle:>8}"
        )
        means = {f"{name}_map_500": precision.mean, f"{name}_auc": one.auc.mean}
        journal.record({figure: mean for figure, mean in means.items() if mean is not None})
