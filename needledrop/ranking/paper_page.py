"""The reproduction as a page: our tables, the paper's beside them, and what carries over."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from needledrop.page import Page, counted
from needledrop.ranking.paper import (
    FULL,
    REPORTED_TAGS,
    SUBSET,
    TITLES,
    OverSeeds,
    Reported,
    SplitResult,
    above_chance,
    ratio,
)
from needledrop.ranking.tag_prediction import TagFigures

_SPLITS = {"random": "random songs", "artist": "artist-disjoint"}
_HEADINGS = {"random": "random songs held out", "artist": "artists held out (artist-disjoint)"}
_METRICS = {"map_500": "mAP@500", "auc": "AUC"}
_COLOURS = ("#1f6fb2", "#d98b2b", "#3c8d5a", "#9aa3af")
_LABEL = "OTHER DATASET, reported"
_RATIOS = (
    ("mAP@500, times the random order's", "map_to_random", "map_500", "random"),
    ("mAP@500, times the linear regression's", "map_to_linear", "map_500", "linear"),
    ("mAP@500, as a share of the oracle's", "map_of_oracle", "map_500", "oracle"),
    ("AUC above chance, as a share of the oracle's", "auc_of_oracle", "auc", "oracle"),
)


def page_of_paper(
    results: Sequence[SplitResult],
    tags: Mapping[str, TagFigures | str] | None,
    *,
    price_per_hour: float = 0.0,
) -> Page:
    """Return the page.

    Args:
        results: of each split.
        tags: by which songs were looked at: the figures, or why there are none; None where there
            are no tags.
        price_per_hour: of the machine that trained; 0 shows no prices.
    """
    first = results[0]
    page = Page(
        "Deep content-based music recommendation: the paper's models on this dataset",
        lead=f"{first.n_training_songs + first.n_validation_songs + first.n_test_songs:,} songs "
        f"with plays and sound, {first.n_factors} factors; songs are held out, and each listener "
        "who played some of them gets all of them ranked.",
    )
    page.sentence(
        "Two different datasets stand on this page. Ours was measured here. The paper's figures "
        "(van den Oord, Dieleman and Schrauwen, 2013) are as reported there, on the Million Song "
        "Dataset, and were not measured here. How many songs are ranked and how many of them a "
        "listener played decides about absolute figures, so they must not be compared across the "
        "datasets; ratios within one dataset may, with care."
    )
    for result in results:
        page.sentence(_in_short(result))
    _add_plot(page, results)
    for result in results:
        _add_split(page, result)
    _add_beside(page, results)
    _add_costs(page, results, price_per_hour)
    _add_tags(page, tags)
    _add_how(page)
    return page


def _in_short(result: SplitResult) -> str:
    """Say which model that hears songs is the best, and how good that is."""
    heard = {
        name: one.map_500.mean
        for name, one in result.models.items()
        if name not in ("random", "oracle") and one.map_500.mean is not None
    }
    kind = _SPLITS.get(result.kind, result.kind)
    if not heard:
        return f"Measured here, {kind}: no model has a figure."
    best = max(heard, key=heard.__getitem__)
    one = result.models[best]
    return (
        f"Measured here, {kind}: the best model that hears songs is {TITLES[best]}, with an "
        f"mAP@500 of {_interval(one.map_500)}: {_number(one.map_to_random, 2)} times a random "
        f"order's, {_number(one.map_to_linear, 2)} times the linear regression's, "
        f"{_percent(one.map_of_oracle)} of the oracle's."
    )


def _add_split(page: Page, result: SplitResult) -> None:
    page.heading(f"This dataset, {_HEADINGS.get(result.kind, result.kind)}")
    page.sentence(
        f"{result.n_training_songs:,} training songs, {result.n_validation_songs:,} validation "
        f"songs, {counted(result.n_test_songs, 'test song')}; "
        f"{counted(result.n_users, 'listener')} played a test song."
    )
    for metric, title in _METRICS.items():
        page.table(
            ["model", title, "its seeds"],
            [
                [TITLES[name], _interval(getattr(one, metric)), _range(getattr(one, metric))]
                for name, one in result.models.items()
            ],
        )
    if result.differences:
        page.sentence(
            "Paired differences of mAP@500, listener by listener; the first is better where the "
            "whole interval is above 0."
        )
        page.table(
            ["pair", "difference", "seeds", "reading"],
            [
                [_pair(pair), _interval(one, signed=True), _range(one), _reading(pair, one)]
                for pair, one in result.differences.items()
            ],
        )


def _add_plot(page: Page, results: Sequence[SplitResult]) -> None:
    page.heading("Both splits")
    names = _names(results)
    # One above the other: side by side their names could not be read on a phone.
    figure = Figure(figsize=(6.2, 1.2 + 0.8 * len(names)), layout="constrained")
    axes = figure.subplots(2, 1)
    height = 0.8 / len(results)
    for axis, (metric, title) in zip(axes, _METRICS.items(), strict=True):
        for number, result in enumerate(results):
            for place, name in enumerate(names):
                model = result.models.get(name)
                one: OverSeeds | None = getattr(model, metric) if model else None
                if one is None or one.mean is None or one.low is None or one.high is None:
                    continue
                y = place + (number - (len(results) - 1) / 2) * height
                label = _SPLITS.get(result.kind, result.kind) if not place else None
                axis.barh(y, one.mean, height * 0.92, color=_COLOURS[number], label=label)
                ends = [[max(0, one.mean - one.low)], [max(0, one.high - one.mean)]]
                axis.errorbar(one.mean, y, xerr=ends, color="#1c2330", capsize=2, lw=1)
        axis.set_title(title, fontsize=11, loc="left")
        axis.set_yticks(range(len(names)), [TITLES[name] for name in names])
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#dfe3ea", lw=0.8)
        axis.set_axisbelow(True)
        axis.invert_yaxis()
    axes[1].axvline(0.5, color="#5b6472", lw=1, ls=":")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    page.plot(
        figure,
        "This dataset: mAP@500 and AUC of each model on either split, with 95% intervals; dotted "
        "is the AUC of chance. A gap between the splits is what knowing the artist is worth.",
    )


def _add_beside(page: Page, results: Sequence[SplitResult]) -> None:
    page.heading("The paper's figures, and the ratios that carry over")
    page.sentence(
        f"Left what was measured here, with its 95% interval; right {_LABEL}: "
        + "; ".join(
            f"{table.title}, {table.n_songs:,} songs ({table.n_test_songs:,} test songs), "
            f"{table.n_users:,} listeners, {table.n_factors} factors"
            for table in (SUBSET, FULL)
        )
        + ". The two sides are not to be compared with one another."
    )
    for place, (metric, title) in enumerate(_METRICS.items()):
        page.table(_columns(title, results), _rows(results, metric, place))
    page.sentence(
        "What may be compared: how many times better a model is than another one on its own "
        "dataset. Ratios to random and to the oracle still depend on how many songs are ranked; "
        "those to the linear regression least."
    )
    for title, part_of_model, metric, reported in _RATIOS:
        page.table(
            _columns(title, results),
            [
                [
                    TITLES[name],
                    *(
                        _number(getattr(one.models[name], part_of_model), 3)
                        if name in one.models
                        else "-"
                        for one in results
                    ),
                    *(
                        _number(_reported_ratio(table, name, metric, reported), 3)
                        for table in (SUBSET, FULL)
                    ),
                ]
                for name in _names(results)
            ],
        )


def _columns(title: str, results: Sequence[SplitResult]) -> list[str]:
    ours = (f"here, {_SPLITS.get(one.kind, one.kind)}" for one in results)
    return [title, *ours, f"{_LABEL}: subset", f"{_LABEL}: full"]


def _rows(results: Sequence[SplitResult], metric: str, place: int) -> list[list[str]]:
    """Return each model's figure here, with its interval, and the reported ones."""
    return [
        [
            TITLES[name],
            *(
                _interval(getattr(one.models[name], metric)) if name in one.models else "-"
                for one in results
            ),
            *(
                f"{table.figures[name][place]:.5f}" if name in table.figures else "-"
                for table in (SUBSET, FULL)
            ),
        ]
        for name in TITLES
        if name in _names(results) or name in SUBSET.figures or name in FULL.figures
    ]


def _names(results: Sequence[SplitResult]) -> list[str]:
    return [name for name in TITLES if any(name in one.models for one in results)]


def _reported_ratio(table: Reported, name: str, metric: str, to: str) -> float | None:
    if name not in table.figures or to not in table.figures:
        return None
    place = list(_METRICS).index(metric)
    figure, other = table.figures[name][place], table.figures[to][place]
    if metric == "auc":
        return ratio(above_chance(figure), above_chance(other))
    return ratio(figure, other)


def _add_costs(page: Page, results: Sequence[SplitResult], price_per_hour: float) -> None:
    page.heading("Training time and cost")
    page.sentence(
        "Of one training on this dataset, mean over seeds and splits; the choice of settings on "
        "validation songs is included, the front end and the factors are not."
    )
    columns = ["model", "trainings", "seconds", "CPU seconds", "learned numbers", "device"]
    rows = []
    for name in TITLES:
        all_ = [t for one in results if name in one.models for t in one.models[name].trainings]
        if not all_:
            continue
        whole = [one for one in all_ if one.is_whole] or all_
        seconds = sum(one.wall_seconds for one in whole) / len(whole)
        row = [
            TITLES[name],
            str(len(all_)),
            ("" if all_[0] in whole and whole[0].is_whole else "at least ") + f"{seconds:.1f}",
            f"{sum(one.cpu_seconds for one in whole) / len(whole):.1f}",
            f"{all_[0].n_parameters:,}",
            ", ".join(sorted({one.device for one in all_})),
        ]
        rows.append(row + ([f"{seconds / 3600 * price_per_hour:.4f}"] if price_per_hour else []))
    page.table([*columns, *(["cost"] if price_per_hour else [])], rows)
    if price_per_hour:
        page.sentence(f"Cost at {price_per_hour:g} for an hour of the machine.")


def _add_tags(page: Page, tags: Mapping[str, TagFigures | str] | None) -> None:
    page.heading("Tags")
    if not tags:
        page.sentence("No tags came with this dataset, so tag prediction was left out.")
        return
    page.sentence(
        "From each kind of features a logistic regression tells whether a song has a tag; the "
        "mean AUC over the most frequent tags, cross-validated, with its 95% interval over the "
        "tags."
    )
    for songs, figures in tags.items():
        if isinstance(figures, str):
            page.sentence(f"This dataset, {songs}: left out. {figures}")
            continue
        left_out = f"; {len(figures.left_out)} had too few songs" if figures.left_out else ""
        page.sentence(
            f"This dataset, {songs}: {figures.n_songs:,} songs, {counted(len(figures.tags), 'tag')}"
            f"{left_out}, {figures.n_folds} folds."
        )
        page.table(
            ["told from", "mean AUC"],
            [
                [name, _interval(OverSeeds(one.mean, one.low, one.high, None, None, 1))]
                for name, one in sorted(figures.means.items(), key=_place_of_source)
            ],
        )
    page.sentence(f"{_LABEL}: 50 Last.fm tags, the paper's subset.")
    page.table(["told from", "reported mean AUC"], list(REPORTED_TAGS.items()))


def _place_of_source(source: tuple[str, object]) -> tuple[int, str]:
    """Sort what tags are told from: the bag of words, models in their order, usage."""
    name, _ = source
    places = {f"factors by {title}": place for place, title in enumerate(TITLES.values(), start=1)}
    return (0 if name == "bag of words" else places.get(name, len(places) + 1)), name


def _add_how(page: Page) -> None:
    page.heading("How these figures were made")
    page.sentence(
        "Listeners' factors come from plays of training and validation songs; nothing of a test "
        "song's plays reaches any model but the oracle, which bounds what these factors can reach "
        "and can't be deployed. Every model learns from the training songs; whatever is chosen "
        "(ridge, weight decay, regularisation, the epoch to stop at) is chosen on the validation "
        "songs. All test songs are ranked for every listener who played one."
    )
    page.sentence(
        "Intervals: 95%, from resampling listeners. A trained model's figure is the mean over its "
        "seeds, its interval's ends are the means of their ends; 'seeds' is from the lowest to the "
        "highest. Ratios are of means, and have no interval."
    )
    page.sentence(
        "The paper doesn't give the sizes of its network of 2013: ours has convolutions over time "
        "with max-pooling in between, batch normalisation and global temporal pooling, which are "
        "of later work. The network of 2014 follows its author's post. Metric learning to rank is "
        "solved by projected subgradient steps in place of cutting planes, with a full-rank metric."
    )


def _interval(one: OverSeeds, *, signed: bool = False) -> str:
    if one.mean is None:
        return "-"
    sign = "+" if signed else ""
    if one.low is None or one.high is None:
        return f"{one.mean:{sign}.4f} (no interval)"
    return f"{one.mean:{sign}.4f} ({one.low:{sign}.4f} to {one.high:{sign}.4f})"


def _range(one: OverSeeds) -> str:
    if one.n_seeds < 2 or one.lowest is None or one.highest is None:
        return "-"
    return f"{one.lowest:.4f} to {one.highest:.4f}"


def _pair(pair: str) -> str:
    return " - ".join(TITLES[name] for name in pair.split(" - "))


def _reading(pair: str, one: OverSeeds) -> str:
    a, _, b = pair.partition(" - ")
    if one.low is None or one.high is None:
        return "unknown"
    if one.low > 0:
        return f"{TITLES[a]} better"
    return f"{TITLES[b]} better" if one.high < 0 else "no clear difference"


def _number(value: float | None, n_digits: int) -> str:
    return "-" if value is None else f"{value:.{n_digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
