"""The paper's tables: its reported figures, and ours of another dataset in the same shape.

Absolute figures don't carry from one dataset to another: mAP depends on how many songs are ranked
and how many of them a listener played. What carries are ratios on the same dataset: to a random
order, to the linear baseline, and to the oracle.

A model that was trained with several seeds is evaluated once for each. Its figure is the mean over
the seeds; the ends of its interval are the means of their ends, which is no narrower than the
interval of the mean.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from needledrop.artifacts import read_json, write_json
from needledrop.errors import ArtifactBroken, ShapeMismatch
from needledrop.ranking.report import Estimate, Report

FORMAT = 1
TITLES: Mapping[str, str] = {
    "random": "random",
    "mlr": "metric learning to rank",
    "linear": "linear regression",
    "mlp": "multi-layer perceptron",
    "cnn_mse": "CNN, MSE",
    "cnn_wpe": "CNN, WPE",
    "cnn2014": "network of 2014",
    "oracle": "oracle (usage)",
}
TRAINED = tuple(name for name in TITLES if name not in ("random", "oracle"))
WITHOUT_SEED = ("linear", "oracle")  # nothing in them is random
COMPARED = (
    ("cnn_mse", "linear"),
    ("cnn_mse", "mlp"),
    ("mlp", "linear"),
    ("linear", "mlr"),
    ("cnn_mse", "cnn_wpe"),
    ("cnn2014", "cnn_mse"),
)
_CHANCE_AUC = 0.5


@dataclass(frozen=True)
class Reported:
    """A table of van den Oord et al. (2013), as reported there; nothing of it was measured here.

    Attributes:
        title, n_songs, n_test_songs, n_users, n_factors: of the dataset.
        figures: by model: mAP@500 and AUC.
    """

    title: str
    n_songs: int
    n_test_songs: int
    n_users: int
    n_factors: int
    figures: Mapping[str, tuple[float, float]]


SUBSET = Reported(
    "the paper's subset",
    9_330,
    1_881,
    20_000,
    50,
    {
        "mlr": (0.01801, 0.60608),
        "linear": (0.02389, 0.63518),
        "mlp": (0.02536, 0.64611),
        "cnn_mse": (0.05016, 0.70987),
        "cnn_wpe": (0.04323, 0.70101),
    },
)
FULL = Reported(
    "the paper's full dataset",
    382_410,
    46_728,
    1_000_000,
    400,
    {
        "random": (0.00015, 0.49935),
        "linear": (0.00101, 0.64522),
        "cnn_mse": (0.00672, 0.77192),
        "oracle": (0.23278, 0.96070),
    },
)
REPORTED_TAGS: Mapping[str, float] = {"bag of words": 0.69365, "factors": 0.86703}


@dataclass(frozen=True)
class Training:
    """What one training cost.

    Attributes:
        wall_seconds, cpu_seconds: of fitting alone, choice of settings included.
        n_parameters: numbers that were learned.
        device: cpu or cuda.
        is_whole: False where a stopped training went on, so that the times are of its last part.
    """

    wall_seconds: float
    cpu_seconds: float
    n_parameters: int
    device: str
    is_whole: bool = True


@dataclass(frozen=True)
class OverSeeds:
    """A figure, or a difference, over the seeds of a model.

    Attributes:
        mean: over the seeds; None where no listener has the figure.
        low, high: 95% interval over the listeners; None for one listener.
        lowest, highest: of the seeds.
        n_seeds: how many.
    """

    mean: float | None
    low: float | None
    high: float | None
    lowest: float | None
    highest: float | None
    n_seeds: int


@dataclass(frozen=True)
class ModelResult:
    """One model on one split.

    Attributes:
        map_500, auc: its figures.
        map_to_random, map_to_linear: ratios of mAP@500.
        map_of_oracle: mAP@500 as a share of the oracle's.
        auc_of_oracle: AUC above chance as a share of the oracle's above chance.
        trainings: one for each seed; none for a model that isn't trained.
    """

    map_500: OverSeeds
    auc: OverSeeds
    map_to_random: float | None
    map_to_linear: float | None
    map_of_oracle: float | None
    auc_of_oracle: float | None
    trainings: tuple[Training, ...] = ()


@dataclass(frozen=True)
class SplitResult:
    """All models on one split.

    Attributes:
        kind: random or artist.
        n_training_songs, n_validation_songs, n_test_songs: of the split, with clips.
        n_users: who played a test song.
        n_factors: k.
        models: by name.
        differences: paired, of mAP@500, by "a - b".
    """

    kind: str
    n_training_songs: int
    n_validation_songs: int
    n_test_songs: int
    n_users: int
    n_factors: int
    models: Mapping[str, ModelResult]
    differences: Mapping[str, OverSeeds]

    def save(self, path: Path) -> None:
        """Write JSON, atomically."""
        write_json(path, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> "SplitResult":
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactBroken: it is missing, or something else.
        """
        content = read_json(path)
        try:
            if content.pop("format") != FORMAT:
                raise ValueError("another format")
            # JSON is written with sorted keys; the tables go by TITLES.
            models = {
                name: _model_from_json(content["models"][name])
                for name in TITLES
                if name in content["models"]
            }
            pairs = [f"{a} - {b}" for a, b in COMPARED]
            differences = {
                pair: OverSeeds(**content["differences"][pair])
                for pair in pairs
                if pair in content["differences"]
            }
            return cls(**{**content, "models": models, "differences": differences})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtifactBroken(
                f"{path}: expected the result of a split, got something else "
                f"({type(error).__name__}: {error}); evaluate again with this version"
            ) from error


def key_of(model: str, seed: int) -> str:
    """Name a model of a seed in a report."""
    return f"{model}#{seed}"


def results_from_report(
    report: Report, trainings: Mapping[str, Training]
) -> tuple[dict[str, ModelResult], dict[str, OverSeeds]]:
    """Gather the seeds of each model; return the models' results and the paired differences.

    Args:
        report: its models are named as :func:`key_of` does.
        trainings: by the same names.

    Raises:
        ShapeMismatch: random or the oracle is missing, which the ratios are to.
    """
    keys: dict[str, list[str]] = {}
    for key in report.models:
        keys.setdefault(key.partition("#")[0], []).append(key)
    if missing := {"random", "oracle"} - set(keys):
        raise ShapeMismatch(f"expected {' and '.join(sorted(missing))} in the report, got none")
    figures = {
        name: {
            metric: over_seeds([report.models[key].metrics[metric] for key in sorted(of_seeds)])
            for metric in ("map_500", "auc")
        }
        for name, of_seeds in keys.items()
    }
    results = {}
    for name in (one for one in TITLES if one in figures):
        precision, auc = figures[name]["map_500"], figures[name]["auc"]
        linear = figures["linear"]["map_500"].mean if "linear" in figures else None
        results[name] = ModelResult(
            precision,
            auc,
            ratio(precision.mean, figures["random"]["map_500"].mean),
            ratio(precision.mean, linear),
            ratio(precision.mean, figures["oracle"]["map_500"].mean),
            ratio(above_chance(auc.mean), above_chance(figures["oracle"]["auc"].mean)),
            tuple(trainings[key] for key in sorted(keys[name]) if key in trainings),
        )
    differences = {
        f"{a} - {b}": _difference(report, keys[a], keys[b])
        for a, b in COMPARED
        if a in keys and b in keys
    }
    return results, differences


def over_seeds(estimates: list[Estimate]) -> OverSeeds:
    """Return the mean over seeds of a figure and of its interval's ends."""
    means = [one.mean for one in estimates if one.mean is not None]
    lows = [one.low for one in estimates if one.low is not None]
    highs = [one.high for one in estimates if one.high is not None]
    if not means:
        return OverSeeds(None, None, None, None, None, len(estimates))
    return OverSeeds(
        float(np.mean(means)),
        float(np.mean(lows)) if lows else None,
        float(np.mean(highs)) if highs else None,
        min(means),
        max(means),
        len(estimates),
    )


def ratio(figure: float | None, to: float | None) -> float | None:
    """Return a ratio; None where there is none."""
    return None if figure is None or not to else figure / to


def above_chance(auc: float | None) -> float | None:
    """Return how far an AUC is above that of a random order."""
    return None if auc is None else auc - _CHANCE_AUC


def _difference(report: Report, a: list[str], b: list[str]) -> OverSeeds:
    """Compare seed by seed; a model without seeds is compared with each seed of the other."""
    n_pairs = max(len(a), len(b))
    estimates = []
    for place in range(n_pairs):
        one = report.comparison(
            sorted(a)[min(place, len(a) - 1)], sorted(b)[min(place, len(b) - 1)], "map_500"
        )
        if one is not None:
            estimates.append(Estimate(one.difference, one.low, one.high, one.n_users))
    return over_seeds(estimates)


def _model_from_json(content: dict[str, Any]) -> ModelResult:
    figures = {name: OverSeeds(**content[name]) for name in ("map_500", "auc")}
    trainings = tuple(Training(**one) for one in content["trainings"])
    return ModelResult(**{**content, **figures, "trainings": trainings})
