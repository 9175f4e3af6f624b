"""Reports with chosen figures, so that each check can be pushed to either side of its line."""

import itertools

import pytest

from needledrop.ranking.report import (
    COMPARED_METRICS,
    METRICS,
    BootstrapFacts,
    Comparison,
    DecileFigures,
    Estimate,
    ModelFigures,
    Report,
    TopListSample,
)

MEANS = {"random": 0.01, "linear": 0.02, "champion": 0.04, "cnn": 0.06, "oracle": 0.2}


def report_of(models=("random", "linear", "cnn", "oracle"), changes=None, **facts):
    """A report in which each model of MEANS clearly beats the ones before it.

    ``changes`` maps (a, b, metric) to (low, high): the interval of a minus b.
    """
    changes = changes or {}

    def comparison(a, b, metric):
        middle = MEANS[a] - MEANS[b]
        low, high = changes.get((a, b, metric), (middle - 0.001, middle + 0.001))
        n_users = facts.get("n_least_popular", 800) if "least" in metric else 2000
        if low is None:
            return Comparison(a, b, metric, None, None, None, 0)
        return Comparison(a, b, metric, (low + high) / 2, low, high, n_users)

    def figures(name):
        mean = MEANS[name]
        estimate = Estimate(mean, mean - 0.001, mean + 0.001, 2000)
        deciles = tuple(DecileFigures(one, 10, 99, estimate, estimate) for one in range(1, 11))
        return ModelFigures(dict.fromkeys(METRICS, estimate), 0.5, 0.4, deciles)

    from_best = sorted(models, key=MEANS.__getitem__, reverse=True)
    return Report(
        n_users=facts.get("n_users", 2000),
        n_users_left_out=3,
        n_users_without_auc=0,
        n_songs=100,
        n_positives=990,
        models={name: figures(name) for name in models},
        comparisons=tuple(
            comparison(a, b, metric)
            for a, b in itertools.combinations(from_best, 2)
            for metric in COMPARED_METRICS
        ),
        sample=TopListSample(1000, 50, 0),
        bootstrap=BootstrapFacts(1000, 0),
        n_songs_known_to_champion=facts.get("n_songs_known_to_champion"),
    )


@pytest.fixture(scope="session")
def make_report():
    return report_of
