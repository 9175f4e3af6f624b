"""The factorisation as a program, by either engine: the same artifact, the same report."""

import numpy as np
import pytest
from scipy import sparse

from components.factorize_plays.__main__ import main
from needledrop.factors.wmf import Factors
from needledrop.plays.split import Split
from needledrop.plays.triplets import Plays

SONGS = np.array([f"song{n:02}" for n in range(12)])


@pytest.mark.parametrize("engine", ["implicit", pytest.param("spark", marks=pytest.mark.engines)])
def test_either_engine_leaves_the_same_artifact(engine, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPARK_MASTER", "local[2]")
    counts = np.random.default_rng(0).poisson(0.7, (40, 12)).astype(np.int64)
    users = np.array([f"user{n:02}" for n in range(40)])
    Plays(sparse.csr_matrix(counts), users, SONGS).save(tmp_path / "plays")
    Split("random", 0, SONGS[:8], SONGS[8:10], SONGS[10:], SONGS[:0]).save(tmp_path / "split.json")
    main(
        [
            *("--plays", str(tmp_path / "plays"), "--split", str(tmp_path / "split.json")),
            *("--factors", str(tmp_path / "factors"), "--set", f"engine={engine}"),
            *("--set", "n_factors=3", "--set", "regularization=2.0", "--set", "n_iterations=2"),
        ]
    )
    factors = Factors.load(tmp_path / "factors")
    assert factors.config.engine == engine
    assert factors.song_ids.tolist() == SONGS[:10].tolist()  # no test song was looked at
    assert factors.user_factors.shape == (40, 3)
    assert np.isfinite(factors.losses[-1])
    assert f"10 songs by {engine}; the objective" in capsys.readouterr().out
    assert f"<td>{engine}</td>" in (tmp_path / "factors.html").read_text()


def test_a_setting_that_is_none_is_one_sentence(tmp_path, capsys):
    places = [f"--{name}={tmp_path / name}" for name in ("plays", "split", "factors")]
    with pytest.raises(SystemExit):
        main([*places, "--set", "rank=7"])
    assert "error: --set rank: expected alpha, epsilon or one of n_factors" in (
        capsys.readouterr().out
    )
