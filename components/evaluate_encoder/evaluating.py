"""Evaluates a candidate beside baselines, the oracle and the champion, on the same test songs."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from components.journal import Journal
from needledrop.audio.decode import DecodeLimits
from needledrop.audio.extraction import ExtractionConfig, extract_features
from needledrop.audio.feature_store import FeatureStore
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.chance import ChanceModel
from needledrop.encoders.oracle import OracleModel
from needledrop.factors.wmf import Factors
from needledrop.plays.split import Split
from needledrop.plays.triplets import Plays
from needledrop.promotion.registry import Registry
from needledrop.ranking.among_known import MixedCatalogue, new_among_known
from needledrop.ranking.evaluate import EvaluationConfig, Report, evaluate
from needledrop.ranking.held_out import HeldOutSongs
from needledrop.ranking.roc import RocCurve, roc_curve
from needledrop.ranking.scores import FactorScores, Scores
from needledrop.storage.opening import below


def evaluate_bundles(
    candidate_path: Path,
    baseline_path: Path,
    factors_path: Path,
    features_path: Path,
    plays_path: Path,
    split_path: Path,
    registry_path: str | Path,
    workspace: str | Path,
    config: EvaluationConfig,
    journal: Journal,
) -> tuple[Report, RocCurve]:
    """Rank all test songs for every listener with each model.

    Returns:
        The figures, and the candidate's curve over a sample of the listeners.
    """
    candidate, baseline = Bundle.load(candidate_path), Bundle.load(baseline_path)
    plays, split = Plays.load(plays_path), Split.load(split_path)
    features = FeatureStore.open(features_path / "features.json")
    factors = Factors.load(factors_path)
    held_out = HeldOutSongs.select(split.test.tolist(), plays, factors, features)
    known_plays = plays.of_songs(factors.song_ids.tolist())
    predicted = candidate.encoder.factors(held_out.clips)
    models: dict[str, Scores] = {
        "random": held_out.scores_of(ChanceModel(config.seed), known_plays),
        "linear": held_out.scores_of(baseline.encoder, known_plays),
        "cnn": FactorScores(factors.user_factors, predicted),
        "oracle": held_out.scores_of(OracleModel(), known_plays),
    }
    n_known = None
    registry = Registry(registry_path)
    if (version := registry.champion()) is not None:
        champion = Bundle.load(registry.bundle_path(version))
        heard = _as_heard_by(champion, held_out, features, workspace)
        models["champion"] = heard.scores_of_champion(champion, known_plays)
        trained_on = champion.catalogue.song_ids[champion.catalogue.is_training_song]
        n_known = int(np.isin(held_out.song_ids, trained_on).sum())
        journal.say(f"comparing with the champion {version}")
    report = evaluate(
        models,
        held_out.relevant,
        held_out.song_ids,
        held_out.popularity,
        config,
        n_songs_known_to_champion=n_known,
    )
    mixed = MixedCatalogue(
        factors.user_factors,
        factors.song_factors,
        known_plays.user_song,
        held_out.relevant,
    )
    before = candidate.encoder.scaler.unstretched(predicted)
    among_known = new_among_known(
        mixed,
        {"as predicted": before, "calibrated": predicted},
        n_resamples=config.n_resamples,
        seed=config.seed,
    )
    report = replace(report, new_among_known=among_known)
    _tell(report, held_out.n_unheard, journal)
    return report, roc_curve(models["cnn"], held_out.relevant, seed=config.seed)


def _as_heard_by(
    champion: Bundle, held_out: HeldOutSongs, features: FeatureStore, workspace: str | Path
) -> HeldOutSongs:
    """Return the same songs through the champion's front end."""
    if champion.frontend == features.frontend:
        return held_out
    wanted = held_out.song_ids.tolist()
    champion_features = extract_features(
        {song_id: features.clip_of(song_id) for song_id in wanted},
        below(workspace, "champion_features"),
        below(workspace, "champion_features.json"),
        ExtractionConfig(
            champion.frontend, DecodeLimits(min_seconds=champion.frontend.window_seconds)
        ),
    )
    return HeldOutSongs.select(wanted, held_out.plays, held_out.factors, champion_features)


def _tell(report: Report, n_unheard: int, journal: Journal) -> None:
    journal.say(
        f"{report.n_songs} test songs, {report.n_users:,} listeners who played one "
        f"({report.n_users_left_out:,} played none), {n_unheard} test songs without a usable clip"
    )
    journal.say(f"{'model':<10}{'mAP@500':>28}{'AUC':>28}")
    figures = {"n_test_songs_without_clip": float(n_unheard)}
    for name, model in report.models.items():
        precision, auc = model.metrics["map_500"], model.metrics["auc"]
        journal.say(f"{name:<10}{precision.in_brackets():>28}{auc.in_brackets():>28}")
        means = {f"{name}_map_500": precision.mean, f"{name}_auc": auc.mean}
        figures |= {one: mean for one, mean in means.items() if mean is not None}
    if (mixed := report.new_among_known) is not None:
        shares = ", ".join(
            f"{share.mean:.1%} {name}" for name, share in mixed.shares_in_lists.items()
        )
        journal.say(
            f"test songs among known ones: {mixed.share_of_plays:.1%} of plays; of the first "
            f"{mixed.list_length} songs {shares}"
        )
        figures["new_among_known_share"] = mixed.shares_in_lists["calibrated"].mean
        figures["new_among_known_share_of_plays"] = mixed.share_of_plays
    journal.record(figures)
