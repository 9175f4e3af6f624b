"""On one machine: brings the factors online and moves the champion pointer."""

from datetime import UTC, datetime
from pathlib import Path

from components.journal import Journal
from feature_repo.store import FactorStore
from needledrop.artifacts import write_json
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.catalogue import AUDIO
from needledrop.errors import RegistryConflict
from needledrop.factors.wmf import Factors
from needledrop.promotion.registry import Registry
from needledrop.promotion.verdict import Verdict


def deploy(
    candidate_path: Path,
    verdict_path: Path,
    factors_path: Path,
    registry_path: str | Path,
    store: str,
    run_id: str,
    deployment_path: Path,
    journal: Journal,
) -> None:
    """Write every song's and every listener's factors online, then move the pointer.

    In this order, since a predictor takes up a champion as soon as the pointer names it. Both are
    repeatable: a run that was stopped in between is finished by the next.
    """
    candidate, verdict = Bundle.load(candidate_path), Verdict.load(verdict_path)
    factors, catalogue = Factors.load(factors_path), candidate.catalogue
    registry = Registry(registry_path)
    # Before anything goes online: promote() would notice too, but after.
    if registry.champion() not in (verdict.champion_version, candidate.version):
        raise RegistryConflict(
            f"expected the champion {verdict.champion_version or 'none'}, got "
            f"{registry.champion() or 'none'}: another run moved it meanwhile; run again, so that "
            "the candidate is compared with the new champion"
        )
    at = datetime.now(UTC)
    feast = FactorStore.open(store)
    feast.write_user_factors(
        factors.user_ids, factors.user_factors, version=candidate.fingerprint, at=at, online=True
    )
    feast.write_song_factors(
        catalogue.song_ids,
        catalogue.song_factors,
        sources=catalogue.sources,
        version=candidate.fingerprint,
        at=at,
        online=True,
    )
    moved = registry.promote(
        candidate.version, expected_champion=verdict.champion_version, run_id=run_id
    )
    n_from_audio = int((catalogue.sources == AUDIO).sum())
    write_json(
        deployment_path,
        {
            "version": candidate.version,
            "fingerprint": candidate.fingerprint,
            "run_id": run_id,
            "at": at.isoformat(),
            "moved": moved,
        },
    )
    journal.record(
        {
            "n_songs_from_usage": len(catalogue.song_ids) - n_from_audio,
            "n_songs_from_audio": n_from_audio,
            "n_listeners": len(factors.user_ids),
        }
    )
    journal.say(
        f"online: {len(catalogue.song_ids):,} songs ({n_from_audio} of them, played by nobody, "
        f"from their sound) and {len(factors.user_ids):,} listeners"
    )
    journal.say(f"champion: {candidate.version}" + ("" if moved else " (it was already)"))
