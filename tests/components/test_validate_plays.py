"""The validation step: one judgement, whoever makes it; a report for a person; a clear refusal."""

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.journal import Journal
from components.validate_plays.expectations import outcomes_of
from components.validate_plays.limits import ValidationConfig
from components.validate_plays.validating import accept
from components.validate_plays.validation import validate
from needledrop.errors import ConfigRejected, PlaysRejected, TracksRejected
from needledrop.plays.summary import summarize
from needledrop.plays.tracks import Tracks, TracksConfig, examine_tracks
from needledrop.plays.triplets import Plays, PlaysConfig, examine_plays

TOLERANT = ValidationConfig(
    PlaysConfig(max_rejected_share=0.9), TracksConfig(max_rejected_share=0.9)
)
BROKEN_PLAYS = [
    "user_id\tsong_id\tplay_count",
    "a",
    "",
    "a\tb\tc\td",
    "\tSOA\t1",
    "a b\tSOA\t1",
    "u1\tS\x00\t1",
    "u1\tSOA\t0",
    "u1\tSOA\t-3",
    "u1\tSOA\t" + "1" + "0" * 18,
    "u1\tSOA\t" + "9" * 30,
    "u1\tSOA\t1.0",
    "u1\tSOA\t",
    "\t\t5",
    " \t \t0",
    "u\u202e\tS\ufffd\tx",
]
TRACKS_HEADER = "song_id,track_id,artist_id,title,year,duration_seconds"
BROKEN_TRACKS = [
    "SOX",
    ",TRX,ARX,x,2000,1",
    "SO X,TRX,ARX,x,2000,1",
    "SOX,T X,A X,x,2000,1",
    "SOX,TRX,ARX,\ufffd,20000,0",
    "SOX,TRX,ARX,x,MM,-1",
]


def quarantined(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture
def world(tmp_path):
    """30 listeners and 20 songs, one of them unknown to the tracks, and a duplicate."""
    random = np.random.default_rng(0)
    plays = [
        f"u{user:02}\tSO{song:02}\t{random.integers(1, 9)}"
        for user in range(30)
        for song in range(20)
        if random.random() < 0.4
    ]
    plays.append(plays[0])
    tracks = [f"SO{song:02},TR{song:02},AR{song % 5},Song {song},2000,15.0" for song in range(19)]
    return World(tmp_path, plays, tracks)


class World:
    def __init__(self, folder, plays, tracks):
        self.plays, self.tracks = plays, tracks
        self.plays_path, self.tracks_path = str(folder / "plays.tsv"), str(folder / "tracks.csv")
        self.out = folder / "out"

    def validate(self, config=None, **options):
        self.write()
        return validate(self.plays_path, self.tracks_path, config, self.out, **options)

    def write(self):
        rows = {self.plays_path: self.plays, self.tracks_path: [TRACKS_HEADER, *self.tracks]}
        for path, lines in rows.items():
            Path(path).write_bytes("".join(line + "\n" for line in lines).encode())

    def refusal(self, config=None, error=PlaysRejected):
        with pytest.raises(error) as refused:
            self.validate(config)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    def findings(self):
        return json.loads((self.out / "validation.json").read_text(encoding="utf-8"))

    def page(self):
        return (self.out / "report.html").read_text(encoding="utf-8")


def test_accepted_data_figures_and_report_are_written(world):
    validation = world.validate()
    plays = validation.plays
    assert (
        plays.n_plays
        == validation.summary.n_plays
        == sum(int(row.rsplit("\t", 1)[1]) for row in world.plays)
    )
    assert len(validation.tracks) == 19
    findings = world.findings()
    assert findings["success"] is True
    assert findings["figures"]["n_users"] == 30
    assert findings["figures"]["orphan_song_share"] == pytest.approx(0.05)
    assert findings["limits"]["plays"]["max_play_count"] == 1_000_000
    assert (world.out / "rejected_plays.tsv").read_text() == "file\tline\trow\treason\n"
    metrics = validation.metrics()
    assert metrics["n_rejected_plays"] == 0
    assert all(np.isfinite(value) for value in metrics.values())


def test_an_attempt_that_is_repeated_takes_the_place_of_the_one_before(world, tmp_path):
    accepted = [tmp_path / name for name in ("accepted_plays", "accepted_tracks")]
    for n_tracks in (19, 18):
        world.plays, world.tracks = world.plays[:-1], world.tracks[:n_tracks]
        world.write()
        accept(
            world.plays_path,
            world.tracks_path,
            ValidationConfig(),
            *accepted,
            world.out,
            tmp_path / "report.html",
            Journal("validate_plays"),
        )
        plays = Plays.load(accepted[0])
        assert plays.n_plays == sum(int(row.rsplit("\t", 1)[1]) for row in world.plays)
        names = [path.name for path in sorted(accepted[0].iterdir())]
        assert names == ["plays.parquet", "songs.parquet", "users.parquet"]
        assert len(Tracks.load(accepted[1])) == n_tracks
        assert sorted(path.suffix for path in world.out.iterdir()) == [
            *(".html", ".json", ".tsv", ".tsv")
        ]


def test_the_report_is_self_contained_and_has_two_plots(world):
    world.validate()
    page = world.page()
    assert page.count("<svg") == 2
    assert "plays per listener" in page
    assert "plays per song" in page
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page)
    assert "Accepted." in page


def test_great_expectations_counts_what_the_library_counts(world):
    world.plays += BROKEN_PLAYS
    world.tracks += BROKEN_TRACKS
    world.validate(TOLERANT)
    plays = examine_plays(world.plays_path, TOLERANT.plays)
    tracks = examine_tracks(world.tracks_path, TOLERANT.tracks)
    counted = {"plays": {}, "tracks": {}}
    for outcome in world.findings()["expectations"]:
        if outcome["table"] in counted and outcome["rule"] != "schema":
            counted[outcome["table"]][outcome["rule"]] = outcome["n_broken"]
    assert counted["plays"] == plays.broken
    assert all(plays.broken.values())
    expected = {
        rule: n for rule, n in tracks.broken.items() if rule not in ("artist_name", "release")
    }
    assert counted["tracks"] == expected
    assert all(expected.values())
    assert len(plays.rejected) == len(BROKEN_PLAYS)
    assert len(tracks.rejected) == len(BROKEN_TRACKS)


@pytest.mark.parametrize("max_rejected_share", [0.0, 0.05, 0.1])
@pytest.mark.parametrize("max_rows", [1, 2_000_000])
def test_both_judge_alike_at_every_limit(world, max_rejected_share, max_rows):
    limits = PlaysConfig(max_rejected_share=max_rejected_share)
    config = replace(TOLERANT, plays=limits, max_rows_for_row_rules=max_rows)
    for broken_row, n_broken, n_rows in (("x", 1, 20), ("u\tSO 1\t-1", 1, 10), ("x", 3, 29)):
        world.plays = [f"u{i}\tSOA\t1" for i in range(n_rows - n_broken)] + [broken_row] * n_broken
        world.write()
        plays = examine_plays(world.plays_path, limits, max_kept_rows=max_rows)
        tracks = examine_tracks(world.tracks_path)
        outcomes = outcomes_of(plays, tracks, summarize(plays, tracks), config)
        refuses = any(outcome.is_fatal for outcome in outcomes)
        assert refuses == (n_broken / n_rows > max_rejected_share)
        assert refuses == (plays.rejected_share > max_rejected_share)


def test_rows_are_quarantined_with_file_line_row_and_reason(world):
    n_good = len(world.plays)
    world.plays += BROKEN_PLAYS
    world.tracks += [world.tracks[0], *BROKEN_TRACKS]
    validation = world.validate(TOLERANT)
    rows = quarantined(world.out / "rejected_plays.tsv")
    assert [int(row["line"]) for row in rows] == list(
        range(n_good + 1, n_good + 1 + len(BROKEN_PLAYS))
    )
    assert {row["file"] for row in rows} == {world.plays_path}
    assert rows[7]["row"] == "u1\\tSOA\\t0"
    assert rows[7]["reason"] == "play_count: expected an integer from 1 to 1,000,000, got '0'"
    assert rows[0]["reason"].endswith("a plays file has no header line")
    rows = quarantined(world.out / "rejected_tracks.tsv")
    assert len(rows) == len(BROKEN_TRACKS) + 1
    assert validation.metrics()["n_rejected_plays"] == len(BROKEN_PLAYS)
    page = world.page()
    assert "Rows of plays that were set aside" in page
    assert "u1\\tSOA\\t0" in page


def test_broken_rows_beyond_the_share_refuse_after_the_report_was_written(world):
    world.plays += BROKEN_PLAYS
    message = world.refusal()
    assert re.match(
        r".*plays\.tsv:\d+: play_count: expected an integer from 1 to 1,000,000, got 'play_count'",
        message,
    )
    assert "max_rejected_share allows 1.00%" in message
    assert world.findings()["success"] is False
    assert "Refused." in world.page()
    assert not (world.out / "plays").exists()
    assert len((world.out / "rejected_plays.tsv").read_text().splitlines()) == 17


def test_broken_tracks_refuse_too(world):
    world.tracks += BROKEN_TRACKS
    message = world.refusal(error=TracksRejected)
    assert "tracks.csv:21: expected 6 columns separated by commas, got 1" in message
    assert world.findings()["success"] is False


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            {"max_top_user_share": 0.01},
            "figures: expected at most 1% of all plays by one listener, got",
        ),
        (
            {"min_density": 0.9},
            "figures: expected at least 90% of all user-song pairs to be played, got",
        ),
    ],
)
def test_a_critical_figure_refuses_in_one_sentence(world, setting, sentence):
    message = world.refusal(ValidationConfig(**setting))
    assert message.startswith(sentence)
    assert next(iter(setting)) in message
    assert sentence.split(":")[1].strip() in world.page()


def test_warnings_are_reported_and_counted_but_pass(world):
    config = ValidationConfig(
        max_orphan_share=0.01, max_duplicate_share=0.0, max_unplayed_share=0.0
    )
    validation = world.validate(config)
    failed = {outcome.rule for outcome in validation.outcomes if not outcome.passed}
    assert failed == {"orphan_song_share", "orphan_play_share", "duplicate_share"}
    assert validation.metrics()["n_warnings"] == 3
    assert "3 warnings" in world.page()


def test_one_broken_file_among_many_is_a_warning(world, tmp_path):
    world.write()
    (tmp_path / "plays-2.tsv").write_text("u1\tSOA\t1\nx\n")
    config = ValidationConfig(PlaysConfig(max_rejected_share=0.1))
    validation = validate(str(tmp_path / "plays*.tsv"), world.tracks_path, config, world.out)
    (outcome,) = [outcome for outcome in validation.outcomes if outcome.table == "files"]
    assert (outcome.passed, outcome.severity, outcome.n_broken) == (False, "warning", 1)


def test_freshness_is_judged_where_dates_exist(world, tmp_path):
    world.write()
    table = pa.table(
        {
            "user_id": ["a", "b"],
            "song_id": ["SO01", "SO02"],
            "play_count": [1, 1],
            "last_played_at": pa.array([0, None], pa.timestamp("us", tz="UTC")),
        }
    )
    pq.write_table(table, tmp_path / "plays.parquet")
    source, config = str(tmp_path / "plays.parquet"), ValidationConfig(max_age_days=30)

    def at(day, config):
        now = datetime(1970, 1, day, tzinfo=UTC)
        return validate(source, world.tracks_path, config, world.out, now=now)

    assert at(30, config).summary.days_since_last_play == pytest.approx(29)
    with pytest.raises(PlaysRejected, match=r"at most 5 days ago, got 9\.0 days ago; bring newer"):
        at(10, ValidationConfig(max_age_days=5))
    with pytest.raises(PlaysRejected, match=r"got 31\.0 days in the future"):
        validate(source, world.tracks_path, None, world.out, now=datetime(1969, 12, 1, tzinfo=UTC))
    assert world.validate(config).summary.days_since_last_play is None


def test_unreadable_sources_are_refused_in_one_sentence(world):
    world.write()
    with pytest.raises(PlaysRejected, match="found none"):
        validate(world.plays_path + "x", world.tracks_path, None, world.out)
    with pytest.raises(TracksRejected, match="expected a header with the column song_id"):
        validate(world.plays_path, world.plays_path, None, world.out)
    assert not (world.out / "plays").exists()


def test_plays_without_one_good_row_are_refused_with_a_report(world):
    world.plays = ["x", "y"]
    everything = ValidationConfig(PlaysConfig(max_rejected_share=1.0))
    assert "plays.tsv:1: expected 3 columns" in world.refusal(everything)
    assert world.findings()["success"] is False
    assert "<svg" not in world.page()


def test_texts_from_the_data_are_escaped_in_the_report(world):
    world.plays.append("<script>alert(1)</script>\tSO01\t-1")
    world.validate(TOLERANT)
    assert "<script" not in world.page()
    assert "&lt;script&gt;" in world.page()


def test_the_same_data_gives_the_same_findings(world):
    world.plays += BROKEN_PLAYS
    runs = []
    for _ in range(2):
        validation = world.validate(TOLERANT)
        validation.plays.save(world.out / "plays")
        validation.tracks.save(world.out / "tracks.parquet")
        paths = sorted(path for path in world.out.rglob("*") if path.suffix not in ("", ".html"))
        runs.append({path.name: path.read_bytes() for path in paths})
    assert len(runs[0]) == 7
    assert runs[0] == runs[1]


def test_a_config_out_of_range_is_refused():
    for setting in ({"min_density": 2}, {"max_age_days": 0}, {"max_rows_for_row_rules": 0}):
        with pytest.raises(ConfigRejected, match=f"validation.{next(iter(setting))}: expected"):
            ValidationConfig(**setting)


def test_importing_the_step_does_not_import_great_expectations():
    code = (
        "import sys, components.validate_plays.validation; "
        "print('great_expectations' in sys.modules, 'matplotlib' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == ["False", "False"]
