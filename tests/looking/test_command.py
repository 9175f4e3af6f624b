"""``python -m needledrop.looking``: what it writes, and what it says where it can't."""

import json
import os
import re

import numpy as np
import pytest

from needledrop.audio.extraction import ExtractionConfig, extract_features
from needledrop.encoders.bundle import Bundle
from needledrop.errors import FrontendMismatch
from needledrop.looking.__main__ import main
from needledrop.looking.data_folder import SongFacts
from needledrop.looking.document import document_of
from needledrop.looking.heard_songs import hear_clips, heard_songs
from needledrop.promotion.registry import Registry
from tests.looking.world import HARMFUL, N_CLIPS
from tests.serving.world import register


@pytest.fixture
def places(looked):
    folder = looked.parents[1]
    return folder / "bundle", folder / "data"


def data_in(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def called(*arguments) -> int:
    return main([str(one) for one in arguments])


def test_the_page_holds_what_can_be_heard(looked, places):
    data = data_in(looked)
    assert len(data["songs"]["id"]) == N_CLIPS + 2 == data["about"]["n_songs"]
    assert data["about"]["version"] == Bundle.load(places[0]).version
    assert HARMFUL in data["songs"]["title"]
    assert all(link.startswith("../data/audio/A%20b/TR") for link in data["songs"]["link"])
    assert data["by_usage"][-1] is None, "nobody has played the last song"
    assert len(data["factors"]) == 6
    assert "{{" not in re.sub(r'id="data">.*', "", looked.read_text(encoding="utf-8"), flags=re.S)


def test_nothing_is_loaded_from_elsewhere(looked):
    html = looked.read_text(encoding="utf-8").partition('id="data"')[0]
    assert re.findall(r'(?:src|href)="([^"]*)"', html) == ["data:,", "#song", "#song"]
    assert "http" not in html.replace("http-equiv", "")
    assert "default-src 'none'" in html


def test_the_same_command_writes_the_same_bytes(looked, places, tmp_path):
    again = looked.with_name("again.html")
    assert called("--bundle", places[0], "--data", places[1], "--out", again) == 0
    assert again.read_bytes() == looked.read_bytes()


def test_a_champion_some_songs_a_title_and_no_sound(places, tmp_path, capsys):
    bundle_folder, data = places
    registry = Registry(tmp_path / "registry")
    register(registry, bundle_folder, Bundle.load(bundle_folder), tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    page = tmp_path / "look.html"
    options = ("--songs", "9", "--queries", "4", "--title", "sONG 17", "--clips", empty)
    arguments = ("--registry", tmp_path / "registry", "--data", data, "--out", page)
    assert called(*arguments, *options) == 0
    found = data_in(page)
    assert len(found["songs"]["id"]) == 9
    assert len(found["queries"]) == 4
    assert found["songs"]["title"].index("Song 17") in found["queries"]
    assert not any(found["songs"]["link"])
    assert "9 songs of version" in capsys.readouterr().out


def test_predicted_factors_are_the_encoders_and_usage_the_catalogues(places):
    bundle, facts = Bundle.load(places[0]), SongFacts.read(places[1])
    ids = [*bundle.catalogue.song_ids[:2].tolist(), bundle.catalogue.song_ids[-1].item()]
    songs = heard_songs(bundle, ids, hear_clips(bundle, facts.clips))
    for row, song_id in enumerate(ids):
        expected = bundle.factors_from_clip(facts.clips[song_id])
        np.testing.assert_allclose(songs.predicted[row], expected, atol=1e-5)
    assert np.array_equal(songs.usage[:2], bundle.catalogue.song_factors[:2])
    assert not songs.usage[2].any()
    assert songs.is_played.tolist() == [True, True, False]


def test_a_runs_features_are_found_and_are_what_the_clips_say(looked, places, tmp_path):
    bundle, clips = Bundle.load(places[0]), SongFacts.read(places[1]).clips
    run = tmp_path / "run"
    register(Registry(run / "registry"), places[0], bundle, tmp_path)
    for name, some in (("older", dict(list(clips.items())[:2])), ("newer", clips)):
        manifest = run / "artifacts" / name / "p" / "extract-features" / "features"
        manifest.mkdir(parents=True)
        config = ExtractionConfig(frontend=bundle.frontend, n_processes=1)
        extract_features(some, tmp_path / "shards", manifest / "features.json", config)
        os.utime(manifest / "features.json", (len(some), len(some)))
    page = tmp_path / "look.html"
    assert called("--run", run, "--data", places[1], "--out", page) == 0
    heard, by_clip = data_in(page), data_in(looked)
    assert heard["songs"]["id"] == by_clip["songs"]["id"]
    assert heard["factors"] == by_clip["factors"]
    # Features are kept in float16, so cosines may differ by a thousandth.
    for one, other in zip(heard["by_audio"], by_clip["by_audio"], strict=True):
        assert np.abs(np.array(one[1]) - np.array(other[1])).max() <= 2
    # No sample of the sound is in the page, and no address outside the data folder.
    assert all(link.startswith(("../", "./")) for link in heard["songs"]["link"] if link)


def test_broken_clips_and_rows_are_left_out_and_counted(places, tmp_path, capsys):
    data = tmp_path / "data"
    (data / "audio").mkdir(parents=True)
    ids = Bundle.load(places[0]).catalogue.song_ids.tolist()
    rows = [f"{song_id},TR{number:03d}" for number, song_id in enumerate(ids)]
    (data / "tracks.csv").write_text("\n".join(["song_id,track_id", *rows, ",TR9"]) + "\n")
    (data / "audio" / "TR000.wav").write_bytes((next(places[1].rglob("TR000.wav"))).read_bytes())
    (data / "audio" / "TR001.wav").write_bytes(b"no sound at all")
    page = tmp_path / "look.html"
    assert called("--bundle", places[0], "--data", data, "--out", page) == 0
    about = data_in(page)["about"]
    assert (about["n_songs"], about["n_unusable"]) == (1, 1)
    assert "1 broken rows" in capsys.readouterr().err
    (data / "audio" / "TR000.wav").unlink()
    assert called("--bundle", places[0], "--data", data, "--out", tmp_path / "none.html") == 1
    assert "could use none of 1" in capsys.readouterr().err
    assert not (tmp_path / "none.html").exists()


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (["--songs", "0"], 2, "n_songs: expected 1 or more, got 0"),
        (["--seed", "-1"], 2, "seed: expected 0 to"),
        (["--title", "never sung"], 1, "--title 'never sung': expected a part"),
        (["--clips", "/no/such/folder"], 2, "--clips /no/such/folder: expected a folder"),
        (["--features", "/no/such/manifest.json"], 1, "expected the artifact manifest.json"),
        (["--data", "/no/such/data"], 1, "--data /no/such/data: expected a folder"),
        (["--out", "/"], 2, "--out /: expected a file"),
        (["--bundle", "/no/such/bundle"], 1, "expected the artifact fingerprint.json"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_can_not_be_is_said_in_one_sentence(
    places, tmp_path, capsys, options, status, sentence
):
    given = {"--bundle": places[0], "--data": places[1], "--out": tmp_path / "look.html"}
    given |= dict([options])
    assert called(*(part for pair in given.items() for part in pair)) == status
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
    assert not (tmp_path / "look.html").exists()


def test_a_run_without_a_champion_and_no_version_at_all(places, tmp_path, capsys):
    others = ("--data", places[1], "--out", tmp_path / "look.html")
    assert called("--run", tmp_path, *others) == 1
    assert "expected a champion" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        called(*others)
    assert ended.value.code == 2


def test_features_of_another_front_end_are_refused(places):
    from needledrop.audio.frontend import FrontendConfig
    from needledrop.looking.heard_songs import hear_features

    class Store:
        frontend = FrontendConfig(n_mels=64)

    with pytest.raises(FrontendMismatch, match="take the manifest of the run"):
        hear_features(Bundle.load(places[0]), Store())


def test_data_can_not_end_the_element_that_it_is_in():
    harm = {"about": "</script><!--<script>", "lines": "\u2028\u2029", "half": "\ud800"}
    page = document_of(harm)
    inside = page.partition('id="data">')[2].partition("</script>")[0]
    assert "<" not in inside
    assert json.loads(inside) == harm | {"half": "?"}
