"""In which order a cluster, the feature store and the registry take up a version.

1. The canary is rolled out and checked. The old version serves, and everything else is its own.
2. The factors go online. There is one set of them, so it changes as late as it can: until here the
   old version's listeners find their factors; from here on readers that name the old version are
   refused by name, for as long as the next two steps take.
3. The champion pointer moves. The registry is the source of truth: from here on this version is
   meant to serve, and a run that is killed now is finished by the next.
4. The canary becomes the stable predictor.

What fails is undone backwards, so that the three agree again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from components.deploy_predictor.cluster import Cluster
from components.deploy_predictor.config import DeployConfig
from components.deploy_predictor.inference_service import Release
from components.deploy_predictor.rollout import Rollout
from feature_repo.store import ONLINE_VIEWS, FactorStore
from needledrop.audio.canned import canned_clip
from needledrop.encoders.bundle import Bundle
from needledrop.errors import NeedledropError
from needledrop.promotion.registry import Registry
from needledrop.promotion.verdict import Verdict

Moved = TypeVar("Moved")


def rollout_of(
    version: str,
    bundle: Bundle,
    verdict: Verdict,
    registry: str | Path,
    run_id: str,
    config: DeployConfig,
    say: Callable[[str], None],
) -> Rollout:
    """Prepare the rollout of a registered version and its bundle.

    Raises:
        DeployFailed: there are no credentials for a cluster.
    """
    release = Release(
        version=version,
        fingerprint=bundle.fingerprint,
        n_factors=bundle.n_factors,
        registry=str(registry),
        run_id=run_id,
        verdict=verdict,
        image=config.predictor_image,
    )
    cluster = Cluster(config.predictor_name, config.namespace, retry_seconds=config.retry_seconds)
    return Rollout(cluster, release, canned_clip(bundle.frontend), config, say)


def go_live(
    rollout: Rollout,
    registry: Registry,
    store: str,
    *,
    put_online: Callable[[], None],
    move_pointer: Callable[[], Moved],
    move_back: Callable[[], object],
) -> Moved:
    """Roll out, put online, move the pointer, promote; return what the move returned.

    Args:
        rollout: of the version.
        registry: whose champion is moved.
        store: the feature store.
        put_online: writes the version's factors.
        move_pointer: makes the version the champion.
        move_back: takes the move back.

    Raises:
        DeployFailed: the version doesn't get ready, fails its check, or the cluster refuses.
        RegistryConflict: another run moved the champion meanwhile.
    """
    rollout.try_candidate()
    before = registry.champion()
    try:
        put_online()
        moved = move_pointer()
        rollout.promote()
    except Exception as failure:
        try:
            rollout.undo(failure)
        finally:
            # What fails now is only told: the failure that led here is the one to be raised.
            with _told(rollout.say, "the champion pointer could not be moved back"):
                if before is not None and registry.champion() == rollout.version != before:
                    move_back()
            with _told(rollout.say, "the champion's factors could not be put online again"):
                _put_online_again(registry, store, rollout.say)
        raise
    return moved


@contextmanager
def _told(say: Callable[[str], None], what: str) -> Iterator[None]:
    try:
        yield
    except (NeedledropError, OSError) as error:
        say(f"{what}: {error}")


def _put_online_again(registry: Registry, store: str, say: Callable[[str], None]) -> None:
    """Put the champion's factors online again, where another version's may be."""
    champion = registry.champion()
    if champion is None:
        return
    fingerprint = Bundle.load(registry.bundle_path(champion)).fingerprint
    feast = FactorStore.open(store, make=False)
    online = {feast.online_version(view) for view in ONLINE_VIEWS}
    if online != {fingerprint}:
        feast.publish_again(fingerprint, at=datetime.now(UTC))
        say(f"online: the factors of {champion} again")
