"""The evaluation report as a page: first what it means, then tables and plots."""

from needledrop.page import Page
from needledrop.ranking.report import (
    METRICS,
    N_LEAST_POPULAR_DECILES,
    TITLES,
    Comparison,
    Estimate,
    NewAmongKnown,
    Report,
)
from needledrop.ranking.report_plots import bars_of_models, lines_by_decile

_SPOKEN = {
    "random": "a random order",
    "linear": "the linear bag-of-words baseline",
    "champion": "the champion",
    "cnn": "the CNN",
    "oracle": "the oracle, which has seen the plays",
}


def page_from_report(report: Report) -> Page:
    """Return the evaluation as a self-contained page."""
    page = Page(
        "Evaluation on held-out songs",
        lead=f"{report.n_songs:,} held-out songs, ranked in full for each of {report.n_users:,} "
        "listeners who played at least one of them.",
    )
    for sentence in summary_sentences(report):
        page.sentence(sentence)
    _add_models(page, report)
    _add_comparisons(page, report)
    _add_popularity(page, report)
    if report.new_among_known is not None:
        _add_new_among_known(page, report.new_among_known)
    _add_how_to_read(page, report)
    return page


def summary_sentences(report: Report, candidate: str = "cnn") -> list[str]:
    """Return what the report says in a few sentences, for someone in a hurry."""
    sentences = []
    if candidate in report.models:
        estimate = report.models[candidate].metrics["map_500"]
        auc = report.models[candidate].metrics["auc"]
        sentences.append(
            f"From audio alone, {_spoken(candidate)} reaches mAP@500 {_with_interval(estimate)} "
            f"and AUC {_with_interval(auc)}."
        )
    for other in ("champion", "linear", "random", "oracle"):
        comparison = report.comparison(candidate, other, "map_500")
        if comparison is not None:
            sentences.append(_comparison_sentence(comparison))
    known = report.n_songs_known_to_champion
    if known:
        sentences.append(
            f"The champion was trained on {known:,} of these {report.n_songs:,} songs, which "
            "favours it."
        )
    return sentences


def _comparison_sentence(comparison: Comparison) -> str:
    a, b = _spoken(comparison.a), _spoken(comparison.b)
    if comparison.low is None or comparison.high is None or comparison.difference is None:
        return f"Nothing can be said of {a} against {b}."
    figures = (
        f"by {abs(comparison.difference):.4f} in mAP@500 "
        f"(95% interval of the difference {comparison.low:+.4f} to {comparison.high:+.4f})"
    )
    if comparison.low > 0:
        return f"{_capital(a)} beats {b} {figures}."
    if comparison.high < 0:
        return f"{_capital(a)} is behind {b} {figures}."
    if comparison.low == comparison.high == 0:
        return f"{_capital(a)} and {b} rank alike."
    return (
        f"No clear difference between {a} and {b}: {comparison.difference:+.4f} in mAP@500 "
        f"(95% interval {comparison.low:+.4f} to {comparison.high:+.4f})."
    )


def _add_models(page: Page, report: Report) -> None:
    page.heading("Models")
    names = report.names_from_worst()
    for metrics in (METRICS[:3], METRICS[3:5]):
        rows = [
            [name, *(_with_interval(report.models[name].metrics[metric]) for metric in metrics)]
            for name in names
        ]
        page.table(["model", *(TITLES[metric] for metric in metrics)], rows)
    if report.n_songs <= report.cutoff:
        page.sentence(
            f"There are no more than {report.cutoff} songs to rank, so that recall@500 is 1 by "
            "construction."
        )
    page.plot(
        bars_of_models(report, names),
        "mAP@500 and AUC of each model; the lines are 95% intervals, dotted is the AUC of chance.",
    )
    rows = [
        [name, f"{report.models[name].coverage:.1%}", f"{report.models[name].gini:.3f}"]
        for name in names
    ]
    page.sentence(
        f"What the top {report.sample.list_length} songs of {report.sample.n_users:,} sampled "
        "listeners are made of: coverage is the share of all songs that appear at all, Gini how "
        "unevenly the lists use the songs (0 is evenly). They describe this sample and have no "
        "interval."
    )
    page.table(["model", "coverage", "Gini"], rows)


def _add_comparisons(page: Page, report: Report) -> None:
    page.heading("Paired comparisons")
    page.sentence(
        "Each row compares two models listener by listener: the first one's figure less the "
        "second one's, and its 95% interval. The first is better where the whole interval is "
        "above 0, the second where it is below."
    )
    pairs = list(dict.fromkeys((one.a, one.b) for one in report.comparisons))
    pairs.sort(key=lambda pair: "cnn" not in pair)
    for metrics in (("map_500", "auc"), ("map_500_least_popular", "auc_least_popular")):
        rows = [
            [
                f"{a} - {b}",
                *(_difference(report.comparison(a, b, metric)) for metric in metrics),
                _reading(report.comparison(a, b, metrics[0])),
            ]
            for a, b in pairs
        ]
        columns = [TITLES[metric] for metric in metrics]
        page.table(["pair", *columns, "by mAP@500"], rows)


def _difference(comparison: Comparison | None) -> str:
    if comparison is None or comparison.difference is None:
        return "-"
    low, high = _number(comparison.low, signed=True), _number(comparison.high, signed=True)
    return f"{comparison.difference:+.4f} ({low} to {high})"


def _reading(comparison: Comparison | None) -> str:
    if comparison is None or comparison.low is None or comparison.high is None:
        return "unknown"
    if comparison.low > 0:
        return f"{comparison.a} better"
    if comparison.high < 0:
        return f"{comparison.b} better"
    return "no clear difference"


def _add_popularity(page: Page, report: Report) -> None:
    page.heading("By popularity of the songs")
    page.sentence(
        "Songs sorted by plays, in ten groups of equal size; 1 is the least played. A group's "
        "songs keep their ranks in the full list. mAP@500 grows with the number of relevant songs, "
        "so compare models within a group rather than groups with one another."
    )
    names = report.names_from_worst()
    page.plot(
        lines_by_decile(report, names),
        "mAP@500 and AUC by popularity decile; the bands are 95% intervals.",
    )
    rows = [
        [
            name,
            _with_interval(report.models[name].metrics["map_500_least_popular"]),
            _with_interval(report.models[name].metrics["auc_least_popular"]),
            f"{report.models[name].metrics['map_500_least_popular'].n_users:,}",
        ]
        for name in names
    ]
    page.sentence(f"The least popular songs are deciles 1 to {N_LEAST_POPULAR_DECILES} together:")
    page.table(["model", "mAP@500", "AUC", "listeners"], rows)
    for metric in ("map_500", "auc"):
        page.sentence(f"{TITLES[metric]} by decile:")
        page.table(["decile", "songs", "pairs", "listeners", *names], _decile_rows(report, metric))


def _decile_rows(report: Report, metric: str) -> list[list[str]]:
    names = report.names_from_worst()
    rows = []
    for place, decile in enumerate(report.models[names[0]].deciles):
        estimates = [getattr(report.models[name].deciles[place], metric) for name in names]
        rows.append(
            [
                str(decile.decile),
                f"{decile.n_songs:,}",
                f"{decile.n_positives:,}",
                f"{estimates[0].n_users:,}",
                *(_number(estimate.mean) for estimate in estimates),
            ]
        )
    return rows


def _add_new_among_known(page: Page, mixed: NewAmongKnown) -> None:
    page.heading("New songs among known ones")
    page.sentence(
        f"The {mixed.n_new:,} test songs, with factors from their sound, in one list with the "
        f"{mixed.n_known:,} songs that the factors were learned from: each listener's "
        f"{mixed.list_length} best songs, known ones that the listener has played left out. "
        f"{mixed.share_of_plays:.1%} of all (listener, song) pairs are of test songs. Predicted "
        "factors are smaller than those from usage, so as predicted new songs come up too seldom."
    )
    rows = [
        [name, _percentage_with_interval(share)] for name, share in mixed.shares_in_lists.items()
    ]
    page.table(["predicted factors", "test songs' share of the lists"], rows)


def _add_how_to_read(page: Page, report: Report) -> None:
    page.heading("How these figures were made")
    page.sentence(
        f"For every listener all {report.n_songs:,} test songs are ranked; nothing is sampled or "
        f"extrapolated. {report.n_positives:,} (listener, song) pairs are relevant. "
        f"{report.n_users_left_out:,} listeners played none of the songs and are left out; "
        f"{report.n_users_without_auc:,} played all of them and have no AUC. Equal scores are put "
        "in the order of a seeded hash of the song id, and count one half in AUC."
    )
    page.sentence(
        f"Intervals: {report.bootstrap.n_resamples:,} bootstrap resamples of listeners (seed "
        f"{report.bootstrap.seed}), 2.5% and 97.5% percentiles, the same resamples for all models. "
        "They cover the choice of listeners, not the choice of songs nor of a training seed."
    )
    if "oracle" in report.models:
        page.sentence(
            "The oracle uses the held-out songs' own plays. It bounds what these factors can "
            "reach and can't be deployed."
        )


def _with_interval(estimate: Estimate) -> str:
    if estimate.mean is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.4f} (no interval)"
    return f"{estimate.mean:.4f} ({estimate.low:.4f} to {estimate.high:.4f})"


def _percentage_with_interval(estimate: Estimate) -> str:
    if estimate.mean is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{estimate.mean:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"


def _number(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.4f}" if signed else f"{value:.4f}"


def _spoken(name: str) -> str:
    return _SPOKEN.get(name, name)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
