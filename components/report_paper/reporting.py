"""Writes the report of the reproduction."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.journal import Journal
from needledrop.artifacts import read_json, write_json
from needledrop.ranking.paper import FULL, REPORTED_TAGS, SUBSET, SplitResult
from needledrop.ranking.paper_page import page_of_paper
from needledrop.ranking.paper_plan import PlanConfig
from needledrop.ranking.report import Estimate
from needledrop.ranking.tag_prediction import TagFigures


def report(
    result_paths: list[Path],
    tags_path: Path,
    price_per_hour: float,
    tables: Path,
    page: Path,
    journal: Journal,
) -> None:
    """Write all figures as JSON, ours and the paper's apart, and as a page.

    Raises:
        ConfigRejected: the price is none.
    """
    price_per_hour = PlanConfig(price_per_hour=price_per_hour).price_per_hour
    results = [SplitResult.load(path) for path in result_paths]
    tags = read_json(tags_path)
    write_json(
        tables,
        {
            "measured_here": {"splits": {one.kind: asdict(one) for one in results}, "tags": tags},
            "reported_by_the_paper_on_another_dataset": {
                "subset": asdict(SUBSET),
                "full": asdict(FULL),
                "tags": dict(REPORTED_TAGS),
            },
        },
    )
    figures = {name: _tag_figures(one) for name, one in tags.items()}
    page_of_paper(results, figures, price_per_hour=price_per_hour).save(page)
    journal.say(f"{len(results)} splits, {max(len(one.models) for one in results)} models")


def _tag_figures(content: dict[str, Any] | str) -> TagFigures | str:
    """Read figures, or why there are none."""
    if isinstance(content, str):
        return content
    means = {name: Estimate(**one) for name, one in content["means"].items()}
    lists = {name: tuple(content[name]) for name in ("tags", "left_out")}
    aucs = {name: tuple(one) for name, one in content["aucs"].items()}
    return TagFigures(**{**content, **lists, "aucs": aucs, "means": means})
