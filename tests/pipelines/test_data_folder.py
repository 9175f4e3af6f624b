"""What is found in a data folder, and what is asked for when it isn't there."""

from pathlib import Path

import pytest

from needledrop.errors import InputError
from pipelines.data_folder import sources_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plays.parquet").touch()
    (tmp_path / "tracks.csv").touch()
    (tmp_path / "audio").mkdir()
    return tmp_path


def test_plays_tracks_and_audio_are_found_under_their_names(folder):
    assert sources_in(folder) == {
        "plays": str((folder / "plays.parquet").resolve()),
        "tracks": str((folder / "tracks.csv").resolve()),
        "audio": str((folder / "audio").resolve()),
    }


@pytest.mark.parametrize("what", ["plays", "tracks", "audio"])
def test_what_is_named_elsewhere_need_not_be_there(folder, what):
    gone = next(folder.glob(f"{what}*"))
    gone.rmdir() if gone.is_dir() else gone.unlink()
    others = [name for name in ("plays", "tracks", "audio") if name != what]
    assert list(sources_in(folder, others)) == sorted(
        others, key=["audio", "plays", "tracks"].index
    )
    with pytest.raises(InputError, match=f"--set {what}=PATH"):
        sources_in(folder)
