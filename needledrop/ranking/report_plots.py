"""The plots of the evaluation report, as matplotlib figures without any global state."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from needledrop.ranking.report import TITLES, Report

_COLOURS = {
    "random": "#9aa3af",
    "linear": "#d98b2b",
    "champion": "#7a5bb5",
    "cnn": "#1f6fb2",
    "oracle": "#3c8d5a",
}
_OTHER_COLOURS = ("#b3446c", "#00798c", "#8d6b45")


def bars_of_models(report: Report, names: list[str]) -> Figure:
    """Draw mAP@500 and AUC of each model, with error bars."""
    figure = Figure(figsize=(8.6, 0.9 + 0.42 * len(names)))
    axes = figure.subplots(1, 2, sharey=True)
    for axis, metric in zip(axes, ("map_500", "auc"), strict=True):
        for place, name in enumerate(names):
            estimate = report.models[name].metrics[metric]
            if estimate.mean is None or estimate.low is None or estimate.high is None:
                continue
            axis.barh(place, estimate.mean, color=_colour(name, names), height=0.62)
            ends = [[max(0, estimate.mean - estimate.low)], [max(0, estimate.high - estimate.mean)]]
            axis.errorbar(estimate.mean, place, xerr=ends, color="#1c2330", capsize=3, lw=1.2)
        axis.set_title(TITLES[metric], fontsize=10)
        axis.set_yticks(range(len(names)), names)
        _quieten(axis)
        axis.grid(axis="x", color="#dfe3ea", lw=0.8)
    axes[0].invert_yaxis()  # the order of the tables
    axes[1].axvline(0.5, color="#5b6472", lw=1, ls=":")
    figure.tight_layout()
    return figure


def lines_by_decile(report: Report, names: list[str]) -> Figure:
    """Draw mAP@500 and AUC of each model over the popularity deciles, with bands."""
    figure = Figure(figsize=(8.6, 3.5))
    axes = figure.subplots(1, 2)
    for axis, metric in zip(axes, ("map_500", "auc"), strict=True):
        for name in names:
            points = [
                (one.decile, estimate.mean, estimate.low, estimate.high)
                for one in report.models[name].deciles
                if (estimate := getattr(one, metric)).low is not None
            ]
            if points:
                decile, mean, low, high = zip(*points, strict=True)
                colour = _colour(name, names)
                axis.fill_between(decile, low, high, color=colour, alpha=0.16, lw=0)
                axis.plot(decile, mean, color=colour, marker="o", ms=3.5, lw=1.5, label=name)
        axis.set_title(TITLES[metric], fontsize=10)
        axis.set_xlabel("popularity decile (10 = most played)", fontsize=9)
        axis.set_xticks(range(1, 11))
        _quieten(axis)
        axis.grid(color="#dfe3ea", lw=0.8)
    axes[1].axhline(0.5, color="#5b6472", lw=1, ls=":")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    if handles:
        figure.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False)
    return figure


def _quieten(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
    axis.set_axisbelow(True)


def _colour(name: str, names: list[str]) -> str:
    if name in _COLOURS:
        return _COLOURS[name]
    others = [other for other in names if other not in _COLOURS]
    return _OTHER_COLOURS[others.index(name) % len(_OTHER_COLOURS)]
