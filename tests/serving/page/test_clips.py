"""Which file is a song's clip."""

import pytest

from needledrop.errors import ConfigRejected, InputError
from serving.page.clips import LocalClips


def folder_with(tmp_path, *names):
    audio = tmp_path / "data" / "audio"
    for name in names:
        (audio / name).parent.mkdir(parents=True, exist_ok=True)
        (audio / name).write_bytes(b"sound")
    return audio


def test_clips_are_named_after_songs_where_no_tracks_are_there(tmp_path):
    audio = folder_with(tmp_path, "SO1.ogg", "deep/SO2.MP3", "notes.txt")
    clips = LocalClips.find(str(audio))
    assert dict(clips.path_of) == {"SO1": audio / "SO1.ogg", "SO2": audio / "deep/SO2.MP3"}
    assert [clips.media_type(path) for path in clips.path_of.values()] == [
        "audio/ogg",
        "audio/mpeg",
    ]


@pytest.mark.parametrize("is_beside", [True, False], ids=["beside", "named"])
def test_and_after_tracks_where_they_are(tmp_path, is_beside):
    audio = folder_with(tmp_path, "TR1.wav", "SO2.wav")
    tracks = (audio.parent if is_beside else tmp_path) / "tracks.csv"
    tracks.write_text("song_id,track_id\nSO1,TR1\nSO2,TR2\n")
    clips = LocalClips.find(str(audio), None if is_beside else str(tracks))
    assert dict(clips.path_of) == {"SO1": audio / "TR1.wav"}


@pytest.mark.parametrize(
    ("folder", "error", "words"),
    [
        ("empty", ConfigRejected, "song ids, found none; name the tracks file with --tracks"),
        ("absent", InputError, "found none"),
        ("s3://bucket/audio", ConfigRejected, "a folder of this machine"),
    ],
)
def test_a_folder_without_songs_clips_is_refused(tmp_path, folder, error, words):
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=words):
        LocalClips.find(folder if "://" in folder else str(tmp_path / folder))
