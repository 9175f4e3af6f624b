"""New songs among known ones: counted as the definition says, and said in the report."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from needledrop.errors import FactorsRejected, ShapeMismatch
from needledrop.ranking.among_known import MixedCatalogue, new_among_known
from needledrop.ranking.evaluate import EvaluationConfig, evaluate
from needledrop.ranking.report import Report
from needledrop.ranking.report_page import page_from_report

N_USERS, N_KNOWN, N_NEW = 60, 25, 10


@pytest.fixture(scope="module")
def catalogue():
    generator = np.random.default_rng(0)
    plays = generator.random((N_USERS, N_KNOWN + N_NEW)) < 0.2
    plays[0, :N_KNOWN] = True  # a listener with nothing left but new songs
    plays[1, :N_KNOWN] = False
    return MixedCatalogue(
        generator.normal(size=(N_USERS, 4)).astype(np.float32),
        generator.normal(size=(N_KNOWN, 4)).astype(np.float32),
        sparse.csr_matrix(plays[:, :N_KNOWN]),
        sparse.csr_matrix(plays[:, N_KNOWN:]),
    )


@pytest.fixture(scope="module")
def new_factors():
    return np.random.default_rng(1).normal(size=(N_NEW, 4)).astype(np.float32)


def by_definition(catalogue, new_factors, length):
    shares = []
    for user, played in enumerate(catalogue.known_plays.toarray()):
        songs = [(song, False) for song in catalogue.known_factors[~played]]
        songs += [(song, True) for song in new_factors]
        listener = catalogue.user_factors[user].astype(np.float64)
        songs.sort(key=lambda one: -float(listener @ one[0]))
        shares.append(sum(is_new for _, is_new in songs[:length]) / min(length, len(songs)))
    return shares


@pytest.mark.parametrize("length", [1, 8, 12, 100])
def test_shares_are_those_of_the_definition(catalogue, new_factors, length):
    mixed = new_among_known(
        catalogue, {"calibrated": new_factors}, list_length=length, n_resamples=100
    )
    share = mixed.shares_in_lists["calibrated"]
    assert share.mean == pytest.approx(np.mean(by_definition(catalogue, new_factors, length)))
    assert share.low <= share.mean <= share.high
    assert share.n_users == N_USERS
    n_new, n_known = catalogue.new_plays.nnz, catalogue.known_plays.nnz
    assert mixed.share_of_plays == pytest.approx(n_new / (n_new + n_known))


def test_lists_of_a_small_catalogue_hold_a_quarter_of_it(catalogue, new_factors):
    mixed = new_among_known(catalogue, {"any": new_factors}, n_resamples=100)
    assert mixed.list_length == (N_KNOWN + N_NEW) // 4


def test_a_sample_of_listeners_is_the_same_each_time(catalogue, new_factors):
    def of_20(seed):
        return new_among_known(
            catalogue, {"any": new_factors}, n_sampled_users=20, n_resamples=100, seed=seed
        ).shares_in_lists["any"]

    assert of_20(0) == of_20(0) != of_20(1)
    assert of_20(0).n_users == 20


def test_what_does_not_belong_together_is_refused(catalogue, new_factors):
    with pytest.raises(ShapeMismatch, match="10 new songs, got 9"):
        new_among_known(catalogue, {"any": new_factors[:-1]})
    with pytest.raises(FactorsRejected, match="finite"):
        new_among_known(catalogue, {"any": np.full_like(new_factors, np.nan)})
    with pytest.raises(ShapeMismatch, match="expected plays of 60 listeners"):
        replace(catalogue, known_plays=catalogue.known_plays[:-1])


@pytest.fixture(scope="module")
def report(catalogue, new_factors, given_scores):
    scores = given_scores(catalogue.user_factors @ new_factors.T)
    songs = [f"SO{number}" for number in range(N_NEW)]
    plain = evaluate(
        {"cnn": scores},
        catalogue.new_plays,
        songs,
        np.arange(N_NEW),
        EvaluationConfig(n_resamples=100),
    )
    mixed = new_among_known(
        catalogue,
        {"as predicted": new_factors / 4, "calibrated": new_factors},
        list_length=8,
        n_resamples=100,
    )
    return replace(plain, new_among_known=mixed)


def test_the_report_comes_back_with_it_and_without_it(report, tmp_path):
    for one in (report, replace(report, new_among_known=None)):
        one.save(tmp_path / "evaluation.json")
        assert Report.load(tmp_path / "evaluation.json") == one


def test_the_page_says_it_before_and_after(report):
    text = page_from_report(report).text()
    assert "New songs among known ones" in text
    for name, share in report.new_among_known.shares_in_lists.items():
        interval = f"{share.mean:.1%} ({share.low:.1%} to {share.high:.1%})"
        assert f"<td>{name}</td><td>{interval}</td>" in text
    assert f"{report.new_among_known.share_of_plays:.1%} of all" in text
    without = page_from_report(replace(report, new_among_known=None)).text()
    assert "New songs among known ones" not in without
