"""Tags are told from features that speak of them, and from no others."""

import numpy as np
import pytest

from needledrop.errors import ConfigRejected, FactorsRejected, InputError, ShapeMismatch
from needledrop.ranking.tag_prediction import TagConfig, predict_tags

N = 200


@pytest.fixture(scope="module")
def planted():
    """(features, has_tag): the first two features decide the first two tags; the third is noise."""
    generator = np.random.default_rng(0)
    known = generator.normal(size=(N, 4))
    noise = generator.normal(size=(N, 6))
    has_tag = np.stack([known[:, 0] > 0, known[:, 1] > 1, generator.random(N) < 0.5], axis=1)
    return {"known": known, "noise": noise}, has_tag


def test_planted_tags_are_found_and_noise_stays_at_one_half(planted):
    features, has_tag = planted
    figures = predict_tags(features, has_tag, ["rock", "slow", "coin"])
    assert figures.tags == ("rock", "slow", "coin")
    rock, slow, coin = figures.aucs["known"]
    assert min(rock, slow) > 0.97
    assert abs(coin - 0.5) < 0.12
    assert max(abs(auc - 0.5) for auc in figures.aucs["noise"]) < 0.13
    mean = figures.means["known"]
    assert mean.mean == pytest.approx(np.mean([rock, slow, coin]))
    assert mean.low <= mean.mean <= mean.high
    assert mean.n_users == 3


def test_the_fold_figures_are_those_of_songs_that_were_not_fitted(planted):
    """Features by which every song can be learned by heart say nothing of other songs."""
    _, has_tag = planted
    by_heart = {"by heart": np.eye(N)}
    [auc, *_] = predict_tags(by_heart, has_tag, ["rock", "slow", "coin"]).aucs["by heart"]
    assert auc == pytest.approx(0.5, abs=0.01)


def test_the_same_seed_gives_the_same_figures_and_scale_does_not_matter(planted):
    features, has_tag = planted
    first = predict_tags(features, has_tag, ["a", "b", "c"], TagConfig(seed=3))
    assert first == predict_tags(features, has_tag, ["a", "b", "c"], TagConfig(seed=3))
    louder = {name: 1000 * one for name, one in features.items()}
    scaled = predict_tags(louder, has_tag, ["a", "b", "c"], TagConfig(seed=3))
    np.testing.assert_allclose(scaled.aucs["known"], first.aucs["known"], atol=1e-4)


def test_one_tag_has_no_interval(planted):
    features, has_tag = planted
    mean = predict_tags(features, has_tag[:, :1], ["rock"]).means["known"]
    assert mean.mean > 0.97
    assert (mean.low, mean.high, mean.n_users) == (None, None, 1)


def test_a_tag_with_fewer_songs_than_folds_is_left_out_and_named(planted):
    features, has_tag = planted
    rare, common = np.zeros(N, bool), np.ones(N, bool)
    rare[:9], common[:9] = True, False
    marked = np.column_stack([has_tag[:, 0], rare, common])
    figures = predict_tags(features, marked, ["rock", "rare", "common"])
    assert (figures.tags, figures.left_out) == (("rock",), ("rare", "common"))
    with pytest.raises(InputError, match="take fewer folds"):
        predict_tags(features, marked[:, 1:], ["rare", "common"])
    assert predict_tags(features, marked, ["a", "b", "c"], TagConfig(n_folds=5)).left_out == ()


def test_what_does_not_fit_is_refused(planted):
    features, has_tag = planted
    with pytest.raises(ShapeMismatch, match="each of 2 tags"):
        predict_tags(features, has_tag, ["a", "b"])
    with pytest.raises(ShapeMismatch, match="of 200 songs"):
        predict_tags({"short": np.ones((3, 2))}, has_tag, ["a", "b", "c"])
    with pytest.raises(FactorsRejected, match="finite"):
        predict_tags({"broken": np.full((N, 2), np.nan)}, has_tag, ["a", "b", "c"])
    for settings in ({"n_folds": 1}, {"n_tags": 0}, {"inverse_penalty": 0.0}):
        with pytest.raises(ConfigRejected, match="tags"):
            TagConfig(**settings)
