"""What evaluate_encoder says of figures that nobody has."""

import numpy as np
from scipy import sparse

from components.evaluate_encoder.evaluating import _tell
from components.journal import Journal
from needledrop.ranking.evaluate import EvaluationConfig, evaluate
from needledrop.ranking.scores import RandomScores


def test_one_listener_who_played_every_song_has_no_auc_and_that_is_no_traceback(capsys):
    scores = {name: RandomScores(1, 5, seed) for seed, name in enumerate(("random", "oracle"))}
    played = sparse.csr_matrix(np.ones((1, 5), dtype=np.int64))
    songs = [f"SO{n}" for n in range(5)]
    report = evaluate(scores, played, songs, np.ones(5), EvaluationConfig(n_resamples=100))
    journal = Journal("evaluate_encoder_test")
    _tell(report, 0, journal)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "random" in line]
    assert rows[-1][-3:] == ["random", "1.0000", "none"]
    assert journal.figures["random_map_500"] == 1.0
    assert "random_auc" not in journal.figures
