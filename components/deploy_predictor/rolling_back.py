"""Puts the previous champion back, on one machine or on a cluster."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from components.deploy_predictor.config import KSERVE, DeployConfig
from needledrop.encoders.bundle import Bundle
from needledrop.promotion.registry import Move, Registry
from needledrop.promotion.verdict import Verdict

_RUN_ID = "rollback"


def roll_back(
    registry_path: str | Path,
    store: str,
    config: DeployConfig | None = None,
    say: Callable[[str], None] = print,
) -> Move:
    """Bring the previous champion's factors online again, then move the pointer.

    In this order, so that a rollback that fails half-way can simply be called again. On a cluster
    the previous version comes back as any version comes: as a canary, checked, promoted.

    Args:
        registry_path: whose champion is moved.
        store: the feature store.
        config: of the cluster's predictor, where there is one.
        say: takes lines for people.

    Raises:
        NoChampion: there is nothing to roll back to.
        StoreMissing: there is no store; nothing is made in its place.
        ArtifactBroken: the previous champion, or its factors, are no longer there; or the history
            of the champions is damaged.
        DeployFailed: the cluster doesn't take it; the present version goes on serving.
    """
    registry = Registry(registry_path)
    champion, target = registry.champion(), registry.rollback_target()
    registry.history()  # a damaged one lets no pointer move: before other factors go online
    previous = Bundle.load(registry.bundle_path(target))
    from feature_repo.store import FactorStore  # takes seconds: only when there is work for it

    # Before anything is tried on a cluster: a mistyped place is refused.
    factors = FactorStore.open(store, make=False)

    def put_online() -> None:
        factors.publish_again(previous.fingerprint, at=datetime.now(UTC))

    def move_pointer() -> Move:
        return registry.rollback(run_id=_RUN_ID)

    if config is None or config.deploy_to != KSERVE:
        put_online()
        return move_pointer()
    from components.deploy_predictor.going_live import go_live, rollout_of

    assert champion is not None  # there is something to roll back to
    verdict = Verdict.load(registry.path(target) / "verdict.json")
    return go_live(
        rollout_of(target, previous, verdict, registry_path, _RUN_ID, config, say),
        registry,
        store,
        put_online=put_online,
        move_pointer=move_pointer,
        move_back=lambda: registry.promote(champion, expected_champion=target, run_id=_RUN_ID),
    )
