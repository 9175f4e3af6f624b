"""How well songs' tags can be told from what is known of the songs.

For each tag a logistic regression with an L2 penalty says from a song's features (its factors, its
bag of words) whether it has the tag. Ten folds, with the tag's share alike in all of them; a fold's
AUC is that of songs which the regression was not fitted on. A tag's AUC is the mean of its folds,
and the figure is the mean over the tags (van den Oord et al. 2013, section 5.4).

Shapes: n songs, g tags, d features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from needledrop.errors import ConfigRejected, FactorsRejected, InputError, ShapeMismatch
from needledrop.ranking.bootstrap import interval_95
from needledrop.ranking.report import Estimate


@dataclass(frozen=True)
class TagConfig:
    """How tags are predicted.

    Attributes:
        n_tags: the most frequent ones.
        n_folds: of the cross-validation; a tag with fewer songs with it, or without it, than folds
            is left out.
        inverse_penalty: C of the logistic regression, on features of deviation 1.
        n_resamples: bootstrap resamples of the tags behind the intervals.
        seed: of the folds and the resamples.
    """

    n_tags: int = 50
    n_folds: int = 10
    inverse_penalty: float = 0.1
    n_resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, lowest in (("n_tags", 1), ("n_folds", 2), ("n_resamples", 100)):
            if getattr(self, name) < lowest:
                raise ConfigRejected(
                    f"tags.{name}: expected a number >= {lowest}, got {getattr(self, name)}"
                )
        if not 0 <= self.seed < 2**32:
            raise ConfigRejected(f"tags.seed: expected 0 to {2**32 - 1}, got {self.seed}")
        if not 0 < self.inverse_penalty < float("inf"):
            raise ConfigRejected(
                f"tags.inverse_penalty: expected a number > 0, got {self.inverse_penalty}"
            )


@dataclass(frozen=True)
class TagFigures:
    """Mean AUC over tags, by what the tags were told from.

    Attributes:
        n_songs: that were looked at.
        n_folds: of the cross-validation.
        tags: the tags that have figures, the most frequent first.
        left_out: tags with too few songs with them, or without them, for so many folds.
        aucs: by features: the AUC of each tag, (g,).
        means: by features, with a 95% interval over the tags.
    """

    n_songs: int
    n_folds: int
    tags: tuple[str, ...]
    left_out: tuple[str, ...]
    aucs: Mapping[str, tuple[float, ...]]
    means: Mapping[str, Estimate]


def predict_tags(
    features: Mapping[str, NDArray[np.floating]],
    has_tag: NDArray[np.bool_],
    tags: Sequence[str],
    config: TagConfig | None = None,
    on_tag: Callable[[], None] | None = None,
) -> TagFigures:
    """Tell tags from each kind of features, in the same folds.

    Args:
        features: by name, (n, d) each; d may differ.
        has_tag: (n, g).
        tags: (g,) names.
        config: folds and penalty.
        on_tag: called when a tag has been told from one kind of features.

    Raises:
        ShapeMismatch: features and tags are not of the same songs, or tags and names differ.
        FactorsRejected: a feature isn't finite.
        InputError: no tag has enough songs.
    """
    config = config or TagConfig()
    _check(features, has_tag, tags)
    counts = has_tag.sum(axis=0)
    enough = (counts >= config.n_folds) & (len(has_tag) - counts >= config.n_folds)
    kept = [tag for tag, is_kept in zip(tags, enough, strict=True) if is_kept]
    if not kept:
        raise InputError(
            f"expected tags that {config.n_folds} songs or more have, and as many have not, got "
            f"none of {len(tags)} over {len(has_tag)} songs; take fewer folds, or more songs"
        )
    aucs: dict[str, tuple[float, ...]] = {}
    for name, matrix in features.items():
        for column in np.flatnonzero(enough):
            aucs[name] = (*aucs.get(name, ()), _auc(matrix, has_tag[:, column], config))
            if on_tag:
                on_tag()
    draws = np.random.default_rng(config.seed).integers(
        0, len(kept), (config.n_resamples, len(kept))
    )
    return TagFigures(
        n_songs=len(has_tag),
        n_folds=config.n_folds,
        tags=tuple(kept),
        left_out=tuple(tag for tag in tags if tag not in kept),
        aucs=aucs,
        means={name: _mean_over_tags(np.array(one), draws) for name, one in aucs.items()},
    )


def _mean_over_tags(aucs: NDArray[np.float64], draws: NDArray[np.int64]) -> Estimate:
    """Return the mean; one tag has no interval, since every resample of it is the same."""
    low, high = interval_95(aucs[draws].mean(axis=1)) if len(aucs) > 1 else (None, None)
    return Estimate(float(aucs.mean()), low, high, len(aucs))


def _auc(features: NDArray[np.floating], labels: NDArray[np.bool_], config: TagConfig) -> float:
    """Return a tag's mean AUC over the folds."""
    # Not at the top: every command reads the configuration above, and this takes a second or two.
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedKFold(config.n_folds, shuffle=True, random_state=config.seed)
    # As they come: in double precision a full-size bag of words would be held three times at 5 GB.
    values = features.astype(np.float32, copy=False)
    figures = []
    for fitted, judged in folds.split(values, labels):
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=config.inverse_penalty, max_iter=1000)
        ).fit(values[fitted], labels[fitted])
        figures.append(roc_auc_score(labels[judged], model.decision_function(values[judged])))
    return float(np.mean(figures))


def _check(
    features: Mapping[str, NDArray[np.floating]], has_tag: NDArray[np.bool_], tags: Sequence[str]
) -> None:
    if has_tag.ndim != 2 or has_tag.shape[1] != len(tags):
        raise ShapeMismatch(f"expected a column for each of {len(tags)} tags, got {has_tag.shape}")
    for name, matrix in features.items():
        if matrix.ndim != 2 or len(matrix) != len(has_tag):
            raise ShapeMismatch(
                f"expected {name} of {len(has_tag)} songs, got {matrix.shape}; "
                "features and tags must be of the same songs"
            )
        if not np.isfinite(matrix).all():
            raise FactorsRejected(f"expected finite {name}, got NaN or infinity")
