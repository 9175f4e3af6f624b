"""Extracts a catalogue's features into the workspace and fits the bag of words."""

from pathlib import Path

from components.journal import Journal
from needledrop.audio.bag_of_words import BagOfWords, BagOfWordsConfig
from needledrop.audio.clips import find_clips
from needledrop.audio.extraction import ExtractionConfig, extract_features
from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.rejected_clips import add_rejected_clips, write_rejected_clips
from needledrop.errors import InputError
from needledrop.page import Page
from needledrop.plays.split import Split
from needledrop.plays.tracks import Tracks
from needledrop.storage.opening import below

MANIFEST, BAG_OF_WORDS, REJECTED = "features.json", "bag_of_words", "rejected_clips.tsv"


def extract(
    tracks_path: Path,
    split_path: Path,
    audio: str,
    workspace: str,
    config: ExtractionConfig,
    words: BagOfWordsConfig,
    max_rejected_share: float,
    out: Path,
    report: Path,
    journal: Journal,
) -> None:
    """Extract what is missing, write the artifact and the report.

    Raises:
        InputError: too many clips can't be used.
    """
    clips = find_clips(audio, Tracks.load(tracks_path).track_of().items()).path_of
    with journal.progress("clips", len(clips), "clip") as advance:
        store = extract_features(
            clips,
            below(workspace, "features"),
            out / MANIFEST,
            config,
            on_clips=lambda n_done, _n_clips: advance(n_done, ""),
        )
    write_rejected_clips(store.rejected, out / REJECTED)
    _page(store, len(clips), config).save(report)
    journal.record({"n_clips": len(clips), "n_rejected_clips": len(store.rejected)})
    journal.say(f"{len(store.song_ids)} clips heard, {len(store.rejected)} rejected")
    if store.n_beyond_full_scale:
        journal.say(
            f"{store.n_beyond_full_scale:,} values of the log-mel are louder than full scale and "
            "were cut; are there clips whose samples are not within -1 and 1?"
        )
    if store.rejected:
        first = f"the first is {store.rejected[0].file}: {store.rejected[0].reason}"
        if len(store.rejected) > max_rejected_share * len(clips):
            raise InputError(
                f"{len(store.rejected)} of {len(clips)} clips can't be used, more than the limit "
                f"of {max_rejected_share:.1%} (max_rejected_clips_share); {first}; all are listed "
                f"in {out / REJECTED}"
            )
        journal.say(f"rejected: {first}; the report on the clips lists all")
    journal.say("fitting the bag of words on the training songs")
    BagOfWords.fit(store, Split.load(split_path).train.tolist(), words).save(out / BAG_OF_WORDS)


def _page(store: FeatureStore, n_clips: int, config: ExtractionConfig) -> Page:
    frontend = config.frontend
    page = Page(
        "Clips and their features",
        lead=f"{len(store.song_ids):,} of {n_clips:,} clips can be used.",
    )
    page.sentence(
        f"{frontend.sample_rate_hz:,} Hz mono, windows of {frontend.window_samples} samples, hop "
        f"{frontend.hop_samples}, {frontend.n_mels} mel bands; the network hears "
        f"{frontend.window_frames} frames ({frontend.window_seconds:g} s) at once."
    )
    add_rejected_clips(store.rejected, page)
    return page
