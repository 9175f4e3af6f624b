"""Puts the previous champion back."""

from datetime import UTC, datetime
from pathlib import Path

from needledrop.encoders.bundle import Bundle
from needledrop.promotion.registry import Move, Registry


def roll_back(registry_path: str | Path, store: str) -> Move:
    """Bring the previous champion's factors online again, then move the pointer.

    In this order, so that a rollback that fails half-way can simply be called again.

    Raises:
        NoChampion: there is nothing to roll back to.
        ArtifactBroken: the previous champion, or its factors, are no longer there.
    """
    registry = Registry(registry_path)
    previous = Bundle.load(registry.bundle_path(registry.rollback_target()))
    from feature_repo.store import FactorStore  # takes seconds: only when there is work for it

    FactorStore.open(store).publish_again(previous.fingerprint, at=datetime.now(UTC))
    return registry.rollback(run_id="rollback")
