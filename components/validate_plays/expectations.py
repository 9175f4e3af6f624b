"""Runs the Great Expectations suites over plays and tracks.

One judgement: the library's pass over the rows decides what is quarantined; the suites check the
same rules on the rows as they came, with the same patterns and limits, and the figures on top.
"""

import os
from typing import TYPE_CHECKING

from components.validate_plays.figure_rules import checked_counts, checked_figures, checked_files
from components.validate_plays.limits import ValidationConfig
from components.validate_plays.outcome import Outcome, Table
from components.validate_plays.row_rules import checked_plays, checked_tracks
from needledrop.plays.summary import Summary
from needledrop.plays.tracks import TracksReading
from needledrop.plays.triplets import PlaysReading

if TYPE_CHECKING:
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.data_context import AbstractDataContext


def outcomes_of(
    plays: PlaysReading, tracks: TracksReading, summary: Summary, config: ValidationConfig
) -> tuple[Outcome, ...]:
    """Run every suite that applies.

    Args:
        plays: what reading the plays gave, with the rows as they came where these are few enough.
        tracks: the same of the tracks.
        summary: the figures of both.
        config: the limits.
    """
    # Great Expectations must not call home, and it decides that when it is imported.
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    tables = [
        checked_plays(plays, config.plays) if plays.rows else checked_counts(plays, config.plays),
        checked_files(plays, config.plays),
        *([checked_tracks(tracks, config.tracks)] if tracks.rows else []),
        checked_figures(summary, config),
    ]
    return tuple(outcome for table in tables for outcome in _validated(table, context))


def _validated(table: Table, context: "AbstractDataContext") -> list[Outcome]:
    import great_expectations as gx

    source = context.data_sources.add_or_update_pandas(table.name)
    batch = source.add_dataframe_asset(table.name).add_batch_definition_whole_dataframe(table.name)
    suite = gx.ExpectationSuite(name=table.name, expectations=table.expectations)
    definition = gx.ValidationDefinition(
        name=table.name, data=batch, suite=context.suites.add(suite)
    )
    checkpoint = gx.Checkpoint(
        name=table.name,
        validation_definitions=[context.validation_definitions.add(definition)],
        result_format={"result_format": "BASIC", "partial_unexpected_count": 0},
    )
    found = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": table.frame})
    (results,) = found.run_results.values()
    by_rule = {result.expectation_config.meta["rule"]: result for result in results.results}
    rules = [expectation.meta["rule"] for expectation in table.expectations]
    return [_outcome(table.name, by_rule[rule]) for rule in rules]


def _outcome(table: str, result: "ExpectationValidationResult") -> Outcome:
    meta, found = result.expectation_config.meta, result.result
    n_broken = found.get("unexpected_count")
    if not found:  # it could not be computed, such as on a missing column
        got = "a table that lacks what is needed to check it"
    elif "got" in meta:
        got = meta["got"]
    elif n_broken is not None:
        n_all = f"{found['element_count']:,}"
        got = f"{n_broken:,} of {n_all} otherwise" if n_broken else f"so in all {n_all}"
    else:
        got = ", ".join(map(str, found["observed_value"]))
    return Outcome(
        table=table,
        rule=meta["rule"],
        expected=meta["expected"],
        got=got,
        advice=meta["advice"],
        severity=result.expectation_config.severity.value,
        passed=bool(result.success),
        n_broken=None if "got" in meta else n_broken,
    )
