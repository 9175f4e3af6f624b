"""Predicts new songs' factors from their clips and adds them to what the champion has online."""

from pathlib import Path
from typing import Any

from components.journal import Journal
from components.score_new_songs.config import ScoringConfig
from feature_repo.facts import SongFacts
from feature_repo.new_songs import add_songs
from feature_repo.store import FactorStore
from needledrop.artifacts import read_json, write_json
from needledrop.audio.decode import DecodeLimits
from needledrop.audio.extraction import ExtractionConfig, extract_features
from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.rejected_clips import (
    RejectedClip,
    add_rejected_clips,
    write_rejected_clips,
)
from needledrop.encoders.bundle import Bundle
from needledrop.errors import InputError, RegistryConflict
from needledrop.page import Page
from needledrop.promotion.registry import Registry
from needledrop.storage.opening import below
from needledrop.storage.place import StoredFile

MANIFEST, SCORED, REJECTED = "features.json", "scored_songs.json", "rejected_clips.tsv"
_SHOWN = 200


def score(
    new_songs_path: Path,
    registry: str,
    store: str,
    workspace: str,
    config: ScoringConfig,
    out: Path,
    journal: Journal,
) -> Page:
    """Hear the new songs, add their factors, and return the page about it.

    The shards are the ones that training looks for, so that a clip is heard once as long as the
    front end stays the same.

    Raises:
        RegistryConflict: another champion was promoted since the songs were looked for.
        InputError: too many clips can't be used; nothing was added.
        FactorsRejected: another champion was promoted while they were heard.
    """
    about = read_json(new_songs_path)
    champion = _champion(registry, about["version"])
    clips = {song_id: StoredFile(**clip) for song_id, clip in about["clips"].items()}
    with journal.progress("clips", len(clips), "clip") as advance:
        features = extract_features(
            clips,
            below(workspace, "features"),
            out / MANIFEST,
            _extraction(champion, config),
            on_clips=lambda n_done, _n_clips: advance(n_done, ""),
        )
    write_rejected_clips(features.rejected, out / REJECTED)
    _require_share(features.rejected, about["n_clips"], config, out)
    song_ids = features.song_ids.tolist()
    with journal.progress("factors", len(song_ids), "song") as advance:
        added = add_songs(
            ((song_id, features[song_id]) for song_id in song_ids),
            champion,
            FactorStore.open(store),
            facts_of=lambda some: SongFacts.from_songs(some, about["tracks"]),
            on_songs=lambda n_done: advance(n_done, ""),
        )
    write_json(
        out / SCORED,
        {"version": about["version"], "fingerprint": champion.fingerprint, "song_ids": added},
    )
    journal.record({"n_songs_added": len(added), "n_rejected_clips": len(features.rejected)})
    journal.say(
        f"{len(added):,} songs have factors now, from their sound, by the champion "
        f"{about['version']}; {len(features.rejected)} clips rejected"
    )
    return _page(about, added, features, len(song_ids))


def _champion(registry: str, version: str) -> Bundle:
    versions = Registry(registry)
    if (present := versions.champion()) != version:
        raise RegistryConflict(
            f"expected the champion {version}, got {present or 'none'}: another one was promoted "
            "since the new songs were looked for; run again, so that they get its factors"
        )
    return Bundle.load(versions.bundle_path(version))


def _extraction(champion: Bundle, config: ScoringConfig) -> ExtractionConfig:
    limits = DecodeLimits(
        min_seconds=champion.frontend.window_seconds, max_seconds=config.max_clip_seconds
    )
    return ExtractionConfig(champion.frontend, limits, n_processes=config.n_processes)


def _require_share(
    rejected: tuple[RejectedClip, ...], n_clips: int, config: ScoringConfig, out: Path
) -> None:
    if len(rejected) > config.max_rejected_clips_share * n_clips:
        raise InputError(
            f"{len(rejected)} of {n_clips} clips are new and can't be used, more than the limit of "
            f"{config.max_rejected_clips_share:.1%} (max_rejected_clips_share); the first is "
            f"{rejected[0].file}: {rejected[0].reason}; all are listed in {out / REJECTED}"
        )


def _page(about: dict[str, Any], added: list[str], features: FeatureStore, n_heard: int) -> Page:
    page = Page("New songs", lead=f"{len(added):,} songs have factors now.")
    page.sentence(
        f"They were heard by the champion {about['version']}. Of {len(about['clips']):,} new clips "
        f"{n_heard:,} can be used; {n_heard - len(added):,} of these songs had factors already, "
        "from a run that was stopped or ran at the same time."
    )
    add_rejected_clips(features.rejected, page)
    if added:
        page.heading("Added songs")
        page.table(["song"], [[song_id] for song_id in added[:_SHOWN]])
    return page
