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
from needledrop.errors import RegistryConflict
from needledrop.factors.sources import AUDIO
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
    promotion = _Promotion(
        candidate=Bundle.load(candidate_path),
        verdict=Verdict.load(verdict_path),
        factors=Factors.load(published.factors),
        plays=Plays.load(published.plays),
        tracks=Tracks.load(published.tracks),
        registry_path=registry_path,
        store=store,
        run_id=run_id,
    )
    promotion.check_champion()
    moved = _gone_live(promotion, config, journal) if config.deploy_to == KSERVE else promotion.go()
    write_json(
        deployment_path,
        {
            "version": promotion.candidate.version,
            "fingerprint": promotion.candidate.fingerprint,
            "run_id": run_id,
            "at": promotion.at.isoformat(),
            "moved": moved,
            "deployed_to": config.deploy_to,
        },
    )
    _tell(promotion, moved, journal)


@dataclass
class _Promotion:
    """A candidate on its way to become the champion, and what goes online with it."""

    candidate: Bundle
    verdict: Verdict
    factors: Factors
    plays: Plays
    tracks: Tracks
    registry_path: str | Path
    store: str
    run_id: str

    def __post_init__(self) -> None:
        self.registry = Registry(self.registry_path)
        self.at = datetime.now(UTC)

    def go(self) -> bool:
        """Put it online and move the pointer; return whether that wasn't there already."""
        self.put_online()
        return self.move_pointer()

    def put_online(self) -> None:
        """The songs' factors come last: whoever sees them finds the rest."""
        self.check_champion()  # on a cluster, minutes have passed
        at = self.at = datetime.now(UTC)
        feast, factors = FactorStore.open(self.store), self.factors
        catalogue, version = self.candidate.catalogue, self.candidate.fingerprint
        feast.write_user_factors(
            factors.user_ids, factors.user_factors, version=version, at=at, online=True
        )
        feast.write_listener_plays(self.plays, version=version, at=at)
        facts = SongFacts.of_songs(catalogue.song_ids, self.tracks, self.plays)
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

    def move_pointer(self) -> bool:
        return self.registry.promote(
            self.candidate.version,
            expected_champion=self.verdict.champion_version,
            run_id=self.run_id,
        )

    def check_champion(self) -> None:
        """Refuse before anything goes online; promote() would notice too, but after.

        Raises:
            RegistryConflict: the champion isn't the one that the candidate was judged against.
            ArtifactBroken: the history of the champions is damaged, which lets no pointer move.
        """
        self.registry.history()
        present = self.registry.champion()
        if present not in (self.verdict.champion_version, self.candidate.version):
            raise RegistryConflict(
                f"expected the champion {self.verdict.champion_version or 'none'}, got "
                f"{present or 'none'}: another run moved it meanwhile; run again, so that the "
                "candidate is compared with the new champion"
            )


def _gone_live(promotion: _Promotion, config: DeployConfig, journal: Journal) -> bool:
    """Roll the candidate out on a cluster, where it is checked before it goes online."""
    # Not at the top: on one machine nothing needs the Kubernetes client, which takes a second.
    from components.deploy_predictor.going_live import go_live, rollout_of

    candidate, registry, run_id = promotion.candidate, promotion.registry, promotion.run_id
    rollout = rollout_of(
        candidate.version,
        candidate,
        promotion.verdict,
        promotion.registry_path,
        run_id,
        config,
        journal.say,
    )
    return go_live(
        rollout,
        registry,
        promotion.store,
        put_online=promotion.put_online,
        move_pointer=promotion.move_pointer,
        move_back=lambda: registry.rollback(run_id=run_id),
    )


def _tell(promotion: _Promotion, moved: bool, journal: Journal) -> None:
    catalogue, n_listeners = promotion.candidate.catalogue, len(promotion.factors.user_ids)
    n_from_audio = int(np.sum(catalogue.sources == AUDIO))
    journal.record(
        {
            "n_songs_from_usage": len(catalogue.song_ids) - n_from_audio,
            "n_songs_from_audio": n_from_audio,
            "n_listeners": n_listeners,
            "deployed_timestamp_seconds": promotion.at.timestamp(),
        }
    )
    journal.say(
        f"online: {len(catalogue.song_ids):,} songs ({n_from_audio} of them, played by nobody, "
        f"from their sound) and {n_listeners:,} listeners"
    )
    version = promotion.candidate.version
    journal.say(f"champion: {version}" + ("" if moved else " (it was already)"))
