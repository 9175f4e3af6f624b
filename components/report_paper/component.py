"""The step report_paper."""

from kfp.dsl import HTML, Dataset, Input, Output

from components.step import step


@step
def report_paper(
    random_result: Input[Dataset],
    artist_result: Input[Dataset],
    tag_result: Input[Dataset],
    price_per_hour: float,
    tables: Output[Dataset],
    paper_report: Output[HTML],
):
    """Put the paper's tables together: both splits, and the reported figures beside ours.

    Args:
        random_result: of the split by random songs.
        artist_result: of the artist-disjoint split.
        tag_result: of tag prediction.
        price_per_hour: of the machine that trained; 0 shows no prices.
        tables: all figures.
        paper_report: the same as a page.
    """
    from pathlib import Path

    from components.journal import journal
    from components.report_paper.reporting import report

    with journal("report_paper", pipeline="needledrop-reproduce-paper") as log:
        report(
            [Path(random_result.path), Path(artist_result.path)],
            Path(tag_result.path),
            price_per_hour,
            Path(tables.path),
            Path(paper_report.path),
            log,
        )
