"""A version and a data folder to look at: some titles would do harm if taken for more than text."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from needledrop.encoders.bundle import Bundle
from needledrop.looking.__main__ import main
from tests.serving.world import N_SONGS, make_bundle, wav_bytes, waveform

N_CLIPS = 24
HARMFUL = "</script><script>document.title='harmed'</script><img src=x onerror=\"alert('harmed')\">"
RIGHT_TO_LEFT = "شب \u202eمهتاب"
LONG = "endless " * 120  # a thousand characters are the most that a title may have
TITLES = {0: HARMFUL, 1: RIGHT_TO_LEFT, 2: LONG, 3: 'It\'s "quoted" & <b>bold</b>, {{DATA}}'}


def title_of(number: int) -> str:
    return TITLES.get(number, f"Song {number:02d}")


def with_held_out_songs(bundle: Bundle, folder: Path) -> Bundle:
    """Save the same bundle again, with songs 18 to 34 as held-out ones."""
    catalogue = replace(bundle.catalogue, is_training_song=np.arange(N_SONGS) < 18)
    return replace(bundle, catalogue=catalogue).save(folder)


def make_data(folder: Path, bundle: Bundle) -> Path:
    """Songs 0 to 23 have a clip each, as have the last two, which nobody has played."""
    audio = folder / "data" / "audio" / "A b"
    audio.mkdir(parents=True)
    tracks = ["song_id,track_id,artist_id,artist_name,title"]
    plays, tags = [], ["track_id,tag,score"]
    for number, song_id in enumerate(bundle.catalogue.song_ids.tolist()):
        title = title_of(number).replace('"', '""')
        tracks.append(f'{song_id},TR{number:03d},AR{number % 4},Artist {number % 4},"{title}"')
        if number < N_CLIPS or number >= N_SONGS - 2:
            clip = wav_bytes(waveform(3.2, seed=number))
            (audio / f"TR{number:03d}.wav").write_bytes(clip)
        if bundle.catalogue.sources[number] == "usage":
            plays += [f"user{user}\t{song_id}\t1" for user in range(1 + number)]
        tags += [f"TR{number:03d},{'loud' if number % 3 else 'quiet'},9", f"TR{number:03d},odd,1"]
    tags.append(f"TR002,{'<b>' * 3_400},99")
    for name, lines in (("tracks.csv", tracks), ("plays.tsv", plays), ("tags.csv", tags)):
        (folder / "data" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "data"


def make_page(folder: Path, *options: str) -> Path:
    """Write the page of a small network with random weights."""
    bundle = with_held_out_songs(make_bundle(folder / "first", seed=1), folder / "bundle")
    data = make_data(folder, bundle)
    page = folder / "pages" / "look.html"
    page.parent.mkdir()
    arguments = ["--bundle", str(folder / "bundle"), "--data", str(data), "--out", str(page)]
    assert main([*arguments, *options]) == 0
    return page
