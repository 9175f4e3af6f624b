"""The step decide_promotion."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Model, Output

from components.step import step


@step
def decide_promotion(
    candidate: Input[Model],
    report: Input[Dataset],
    registry: str,
    run_id: str,
    job_id: str,
    margin_map: float,
    auc_tolerance: float,
    min_users: int,
    verdict: Output[Artifact],
    verdict_report: Output[HTML],
    verdict_summary: Output[Markdown],
    model_card: Output[Markdown],
) -> bool:
    """Judge the candidate, and register it with its verdict, promoted or not.

    Args:
        candidate: the bundle.
        report: its evaluation.
        registry: folder or s3:// URI; its champion is what the candidate has to beat.
        run_id: who registers it; may be empty.
        job_id: Kubeflow's id of the run, which counts where run_id is empty.
        margin_map: how much better than the champion, in mAP@500, the candidate has to be.
        auc_tolerance: the largest loss of AUC that is acceptable.
        min_users: with fewer listeners in the evaluation nothing is promoted.
        verdict: each check with its figures.
        verdict_report: the same as a page.
        verdict_summary: the same in Markdown, for a job's summary.
        model_card: what the candidate is for, what it was measured on, and where it ends.

    Returns:
        Whether the candidate is promoted. (The one unnamed output: kfp 2.17's local runner skips
        a condition on a named one without a word.)
    """
    from pathlib import Path

    from components.decide_promotion.deciding import decide
    from components.journal import journal
    from needledrop.promotion.gate import GateConfig
    from needledrop.promotion.verdict import markdown_from_verdict, page_from_verdict

    with journal("decide_promotion") as log:
        config = GateConfig(margin_map=margin_map, auc_tolerance=auc_tolerance, min_users=min_users)
        judged = decide(
            Path(candidate.path),
            Path(report.path),
            registry,
            run_id or job_id,
            config,
            Path(verdict.path),
            Path(model_card.path),
            log,
        )
        page_from_verdict(judged).save(Path(verdict_report.path))
        Path(verdict_summary.path).write_text(markdown_from_verdict(judged), encoding="utf-8")
    return judged.promoted
