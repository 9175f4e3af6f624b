"""Brings the factors online and moves the champion pointer; on a cluster, rolls the version out."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from components.deploy_predictor.config import KSERVE, DeployConfig
from components.journal import Journal
from feature_repo.facts import SongFacts
from feature_repo.store import FactorStore
from needledrop.artifacts import write_json
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.catalogue import AUDIO
from needledrop.errors import RegistryConflict
from needledrop.factors.wmf import Factors
from needledrop.plays.tracks import Tracks
from needledrop.plays.triplets import Plays
from needledrop.promotion.registry import Registry
from needledrop.promotion.verdict import Verdict


@dataclass(frozen=True)
class Published:
    """What goes online beside the candidate's catalogue.

    Attributes:
        factors: folder of the users' factors.
        plays: folder of the accepted plays.
        tracks: file of the accepted tracks.
    """

    factors: Path
    plays: Path
    tracks: Path


def deploy(
    candidate_path: Path,
    verdict_path: Path,
    published: Published,
    registry_path: str | Path,
    store: str,
    run_id: str,
    config: DeployConfig,
    deployment_path: Path,
    journal: Journal,
) -> None:
    """Write every song's and every listener's factors online, and what is known about them.

    Then move the pointer: in this order, since a predictor takes up a champion as soon as the
    pointer names it. Both are repeatable: a run that was stopped in between is finished by the
    next. On a cluster both happen between the canary's check and its promotion (``going_live``).
    """
    candidate, verdict = Bundle.load(candidate_path), Verdict.load(verdict_path)
    factors, catalogue = Factors.load(published.factors), candidate.catalogue
    plays, tracks = Plays.load(published.plays), Tracks.load(published.tracks)
    registry = Registry(registry_path)
    _check_champion(registry, verdict, candidate)
    at = datetime.now(UTC)

    def put_online() -> None:
        nonlocal at
        _check_champion(registry, verdict, candidate)  # on a cluster, minutes have passed
        at = datetime.now(UTC)
        _write_online(FactorStore.open(store), candidate, factors, plays, tracks, at)

    def move_pointer() -> bool:
        return registry.promote(
            candidate.version, expected_champion=verdict.champion_version, run_id=run_id
        )

    if config.deploy_to == KSERVE:
        # Not at the top: on one machine nothing needs the Kubernetes client, which takes a second.
        from components.deploy_predictor.going_live import go_live, rollout_of

        rollout = rollout_of(
            candidate.version, candidate, verdict, registry_path, run_id, config, journal.say
        )
        moved = go_live(
            rollout,
            registry,
            store,
            put_online=put_online,
            move_pointer=move_pointer,
            move_back=lambda: registry.rollback(run_id=run_id),
        )
    else:
        put_online()
        moved = move_pointer()
    write_json(
        deployment_path,
        {
            "version": candidate.version,
            "fingerprint": candidate.fingerprint,
            "run_id": run_id,
            "at": at.isoformat(),
            "moved": moved,
            "deployed_to": config.deploy_to,
        },
    )
    n_from_audio = int(np.sum(catalogue.sources == AUDIO))
    journal.record(
        {
            "n_songs_from_usage": len(catalogue.song_ids) - n_from_audio,
            "n_songs_from_audio": n_from_audio,
            "n_listeners": len(factors.user_ids),
            "deployed_timestamp_seconds": at.timestamp(),
        }
    )
    journal.say(
        f"online: {len(catalogue.song_ids):,} songs ({n_from_audio} of them, played by nobody, "
        f"from their sound) and {len(factors.user_ids):,} listeners"
    )
    journal.say(f"champion: {candidate.version}" + ("" if moved else " (it was already)"))


def _check_champion(registry: Registry, verdict: Verdict, candidate: Bundle) -> None:
    """Refuse before anything goes online; promote() would notice too, but after.

    Raises:
        RegistryConflict: the champion isn't the one that the candidate was judged against.
    """
    present = registry.champion()
    if present not in (verdict.champion_version, candidate.version):
        raise RegistryConflict(
            f"expected the champion {verdict.champion_version or 'none'}, got "
            f"{present or 'none'}: another run moved it meanwhile; run again, so that the "
            "candidate is compared with the new champion"
        )


def _write_online(
    feast: FactorStore,
    candidate: Bundle,
    factors: Factors,
    plays: Plays,
    tracks: Tracks,
    at: datetime,
) -> None:
    """The songs' factors come last: whoever sees them finds the rest."""
    catalogue, version = candidate.catalogue, candidate.fingerprint
    feast.write_user_factors(
        factors.user_ids, factors.user_factors, version=version, at=at, online=True
    )
    feast.write_listener_plays(plays, version=version, at=at)
    facts = SongFacts.of_songs(catalogue.song_ids, tracks, plays)
    feast.write_song_facts(catalogue.song_ids, facts, version=version, at=at, online=True)
    feast.put_availability_online()
    feast.write_song_factors(
        catalogue.song_ids,
        catalogue.song_factors,
        sources=catalogue.sources,
        version=version,
        at=at,
        online=True,
    )
