"""The evaluation report: every model's figures with intervals, and the paired comparisons.

``evaluation.json``::

    {"format": 1, "cutoff": 500,
     "n_users", "n_users_left_out", "n_users_without_auc", "n_songs", "n_positives",
     "n_songs_known_to_champion": int | null,
     "new_among_known": null | {"list_length", "n_known", "n_new", "share_of_plays",
                                "shares_in_lists": {name: ESTIMATE}},
     "sample": {"n_users", "list_length", "seed"},          of coverage and Gini
     "bootstrap": {"n_resamples", "seed", "level": 0.95},
     "models": {name: {"metrics": {metric: ESTIMATE}, "coverage", "gini",
                       "deciles": [{"decile", "n_songs", "n_positives",
                                    "map_500": ESTIMATE, "auc": ESTIMATE}]}},
     "comparisons": [{"a", "b", "metric", "difference", "low", "high", "n_users"}]}

    ESTIMATE = {"mean": float | null, "low": float | null, "high": float | null, "n_users": int}

A figure that nobody has is null: the file holds finite numbers only.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from needledrop.artifacts import read_json, write_json
from needledrop.errors import ArtifactBroken

FORMAT = 1
CUTOFF = 500
N_DECILES = 10
N_LEAST_POPULAR_DECILES = 3

METRICS = (
    "map_500",
    "auc",
    "ndcg_500",
    "recall_50",
    "recall_500",
    "map_500_least_popular",
    "auc_least_popular",
)
TITLES = {
    "map_500": "mAP@500",
    "auc": "AUC",
    "ndcg_500": "nDCG@500",
    "recall_50": "recall@50",
    "recall_500": "recall@500",
    "map_500_least_popular": "mAP@500, least popular songs",
    "auc_least_popular": "AUC, least popular songs",
}
COMPARED_METRICS = ("map_500", "auc", "map_500_least_popular", "auc_least_popular")

_FROM_WORST = ("random", "linear", "champion", "cnn", "oracle")


@dataclass(frozen=True)
class Estimate:
    """A mean over users with its 95% interval.

    Attributes:
        mean: None where no user has the figure.
        low: lower end, the 2.5% percentile of the resampled means.
        high: upper end, the 97.5% percentile; both are None for fewer than two users.
        n_users: the users who have the figure.
    """

    mean: float | None
    low: float | None
    high: float | None
    n_users: int

    def in_brackets(self) -> str:
        """Say it as ``0.2202 [0.2122, 0.2284]``; without what isn't there."""
        if self.mean is None:
            return "none"
        if self.low is None or self.high is None:
            return f"{self.mean:.4f}"
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class DecileFigures:
    """Figures on one tenth of the songs; decile 1 holds the least played ones."""

    decile: int
    n_songs: int
    n_positives: int
    map_500: Estimate
    auc: Estimate


@dataclass(frozen=True)
class ModelFigures:
    """All figures of one model.

    Attributes:
        metrics: by the names in ``METRICS``.
        coverage: share of the test songs that are in at least one sampled user's top list.
        gini: how unevenly the sampled top lists use the songs; 0 is evenly.
        deciles: ten of them, the least popular songs first.
    """

    metrics: Mapping[str, Estimate]
    coverage: float
    gini: float
    deciles: tuple[DecileFigures, ...]


@dataclass(frozen=True)
class Comparison:
    """The mean over users of a's figure minus b's, with its paired 95% interval."""

    a: str
    b: str
    metric: str
    difference: float | None
    low: float | None
    high: float | None
    n_users: int

    def reversed(self) -> "Comparison":
        """Return the same comparison seen from b."""
        low, high = _negated(self.high), _negated(self.low)
        difference = _negated(self.difference)
        return Comparison(self.b, self.a, self.metric, difference, low, high, self.n_users)


@dataclass(frozen=True)
class TopListSample:
    """Whose top lists coverage and Gini were taken from."""

    n_users: int
    list_length: int
    seed: int


@dataclass(frozen=True)
class BootstrapFacts:
    """How the intervals were made."""

    n_resamples: int
    seed: int
    level: float = 0.95


@dataclass(frozen=True)
class NewAmongKnown:
    """How often new songs, known from audio, reach lists that they share with songs known by usage.

    Attributes:
        list_length: songs in a listener's list.
        n_known: songs whose factors come from usage; what a listener has played isn't listed.
        n_new: songs whose factors come from audio.
        share_of_plays: of the new songs, among all (listener, song) pairs.
        shares_in_lists: of the new songs, the mean over listeners, by what predicted them.
    """

    list_length: int
    n_known: int
    n_new: int
    share_of_plays: float
    shares_in_lists: Mapping[str, Estimate]


@dataclass(frozen=True)
class Report:
    """An evaluation of several models on the same held-out songs and the same users.

    Attributes:
        n_users: users with at least one relevant test song; every figure is over them.
        n_users_left_out: users without one.
        n_users_without_auc: users to whom every test song is relevant, so that there is nothing to
            compare with; they are left out of AUC alone.
        n_songs: test songs, all of them ranked for every user.
        n_positives: (user, relevant test song) pairs.
        models: figures by model name.
        comparisons: of every two models, see :meth:`comparison`.
        sample: the top lists behind coverage and Gini.
        bootstrap: the resampling behind the intervals.
        n_songs_known_to_champion: test songs that the champion was trained on, which favours it;
            None when there is no champion or nobody counted.
        new_among_known: the candidate's test songs in one list with the songs that it was trained
            on; None where nobody looked.
        cutoff: the 500 of mAP@500.
    """

    n_users: int
    n_users_left_out: int
    n_users_without_auc: int
    n_songs: int
    n_positives: int
    models: Mapping[str, ModelFigures]
    comparisons: tuple[Comparison, ...]
    sample: TopListSample
    bootstrap: BootstrapFacts
    n_songs_known_to_champion: int | None = None
    new_among_known: NewAmongKnown | None = None
    cutoff: int = CUTOFF

    def names_from_worst(self) -> list[str]:
        """Return the models' names in the order of :func:`from_worst`."""
        return from_worst(self.models)

    def comparison(self, a: str, b: str, metric: str) -> Comparison | None:
        """Return a against b by a metric, whichever way round it was stored; None if absent."""
        for one in self.comparisons:
            if one.metric == metric and {one.a, one.b} == {a, b}:
                return one if one.a == a else one.reversed()
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``evaluation.json``."""
        content = asdict(self)
        content["format"] = FORMAT
        content["comparisons"] = list(content["comparisons"])
        for model in content["models"].values():
            model["deciles"] = list(model["deciles"])
        return content

    def save(self, path: Path) -> None:
        """Write ``evaluation.json``, atomically."""
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: Path) -> "Report":
        """Read ``evaluation.json``.

        Raises:
            ArtifactBroken: it is missing, or no evaluation report of this format.
        """
        content = read_json(Path(path))
        try:
            return _report_from_json(content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ArtifactBroken(
                f"expected an evaluation report of format {FORMAT} in {path}, got something else "
                f"({type(error).__name__}: {error}); evaluate again with this version"
            ) from error


def from_worst(names: Iterable[str]) -> list[str]:
    """Sort models' names, the one that should be worst first; unknown ones go in the middle."""
    place = {name: float(rank) for rank, name in enumerate(_FROM_WORST)}
    return sorted(names, key=lambda name: (place.get(name, 2.5), name))


def _negated(value: float | None) -> float | None:
    return None if value is None else -value


def _report_from_json(content: dict[str, Any]) -> Report:
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']}")
    fields = {key: value for key, value in content.items() if key != "format"}
    fields["models"] = {name: _model_from_json(one) for name, one in content["models"].items()}
    fields["comparisons"] = tuple(Comparison(**one) for one in content["comparisons"])
    fields["sample"] = TopListSample(**content["sample"])
    fields["bootstrap"] = BootstrapFacts(**content["bootstrap"])
    if (mixed := fields.get("new_among_known")) is not None:
        shares = {name: Estimate(**one) for name, one in mixed["shares_in_lists"].items()}
        fields["new_among_known"] = NewAmongKnown(**{**mixed, "shares_in_lists": shares})
    return Report(**fields)


def _model_from_json(content: dict[str, Any]) -> ModelFigures:
    deciles = tuple(
        DecileFigures(
            **{**one, "map_500": Estimate(**one["map_500"]), "auc": Estimate(**one["auc"])}
        )
        for one in content["deciles"]
    )
    metrics = {name: Estimate(**one) for name, one in content["metrics"].items()}
    return ModelFigures(metrics, content["coverage"], content["gini"], deciles)
