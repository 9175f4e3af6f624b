"""The splitting step: which songs it splits, and what it tells of them."""

import numpy as np
from scipy import sparse

from components.journal import Journal
from components.split_songs.splitting import split_catalogue
from needledrop.plays.split import Split, SplitConfig, split_songs
from needledrop.plays.tracks import Tracks
from needledrop.plays.triplets import Plays

SONGS = np.array([f"SO{number:03d}" for number in range(60)])
PLAYED, WITH_TRACK, HEARD = SONGS[:50], SONGS[5:], SONGS[5:55]


def test_played_songs_are_split_without_reading_their_pairs(tmp_path):
    plays = Plays(sparse.csr_matrix(np.ones((3, 50), np.int64)), np.array(["a", "b", "c"]), PLAYED)
    plays.save(tmp_path / "plays")
    for name in ("plays", "users"):
        (tmp_path / "plays" / f"{name}.parquet").unlink()
    artists = np.array([f"AR{n % 12}" for n in range(len(WITH_TRACK))], dtype=np.object_)
    Tracks(WITH_TRACK, WITH_TRACK.astype(np.object_), artists).save(tmp_path / "tracks.parquet")
    (tmp_path / "audio").mkdir()
    for song_id in HEARD:
        (tmp_path / "audio" / f"{song_id}.ogg").touch()
    config, journal = SplitConfig("artist", 0.2, 0.3), Journal("split_songs")
    split_catalogue(
        tmp_path / "plays",
        tmp_path / "tracks.parquet",
        str(tmp_path / "audio"),
        config,
        tmp_path / "split.json",
        journal,
    )
    artist_of = dict(zip(WITH_TRACK.tolist(), artists.tolist(), strict=True))
    expected = split_songs(
        PLAYED.tolist(), audible=HEARD.tolist(), artist_of=artist_of, config=config
    )
    split = Split.load(tmp_path / "split.json")
    for part in ("train", "validation", "test", "left_out"):
        assert getattr(split, part).tolist() == getattr(expected, part).tolist() != []
    figures = journal.figures
    assert figures["n_played_songs_without_clip"] == 5
    assert figures["n_songs_without_plays"] == 5
