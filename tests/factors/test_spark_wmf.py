"""The factorisation on Spark, with two local cores, against implicit's on the same plays."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

from needledrop.errors import ConfigRejected, EngineFailed, ShapeMismatch
from needledrop.factors.confidence import ConfidenceConfig, confidence_from_plays
from needledrop.factors.fold_in import fold_in_rows
from needledrop.factors.spark_wmf import learn_factors_on_spark, spark_session
from needledrop.factors.wmf import Factors, WmfConfig, learn_factors, wmf_loss
from needledrop.plays.triplets import Plays

pytestmark = pytest.mark.engines

N_USERS, N_SONGS = 300, 80
CONFIG = WmfConfig(n_factors=6, regularization=5.0, n_iterations=8, engine="spark")


@pytest.fixture(scope="module")
def plays() -> Plays:
    """Listeners of four tastes; some songs are heard by many, the last by nobody."""
    generator = np.random.default_rng(0)
    taste = generator.integers(0, 4, (N_USERS, 1)) == np.arange(N_SONGS) % 4
    popularity = 3 / (3 + np.arange(N_SONGS) / 4)
    heard = generator.random((N_USERS, N_SONGS)) < popularity * np.where(taste, 0.5, 0.05)
    counts = heard * generator.integers(1, 9, heard.shape)
    counts[5], counts[:, -1] = 0, 0
    return Plays(
        sparse.csr_matrix(counts.astype(np.int64)),
        np.array([f"user{n:03}" for n in range(N_USERS)]),
        np.array([f"song{n:02}" for n in range(N_SONGS)]),
    )


@pytest.fixture(scope="module")
def folder(plays, tmp_path_factory):
    """A function that returns the folder of the plays."""
    path = tmp_path_factory.mktemp("plays") / "plays"
    plays.save(path)
    return lambda: path


@pytest.fixture(scope="module")
def session():
    one = spark_session("local[2]")
    one.conf.set("spark.sql.shuffle.partitions", "2")
    yield one
    one.stop()


def test_the_objective_is_the_one_of_implicit_and_the_artifact_too(
    session, plays, folder, tmp_path
):
    known = [song for song in plays.song_ids.tolist() if song != "song07"]
    done = learn_factors_on_spark(session, folder, known, CONFIG)
    learned, some = done.factors, plays.of_songs(known)
    reference = learn_factors(some, CONFIG)
    confidence = confidence_from_plays(some.user_song, CONFIG.confidence)

    loss = wmf_loss(confidence, learned.user_factors, learned.song_factors, CONFIG.regularization)
    assert learned.losses == (pytest.approx(loss, rel=1e-5),)
    assert loss == pytest.approx(reference.losses[-1], rel=0.02)
    # Each listener stands at its optimum, as after learn_factors; who played nothing, at zero.
    own = fold_in_rows(confidence, learned.song_factors, CONFIG.regularization)
    np.testing.assert_allclose(learned.user_factors, own, atol=1e-4)
    assert not learned.user_factors[5].any()
    assert done.n_listeners.tolist() == np.diff(some.user_song.tocsc().indptr).tolist()

    learned.save(tmp_path / "factors")
    loaded = Factors.load(tmp_path / "factors")
    assert loaded.config == CONFIG
    assert loaded.song_ids.tolist() == known
    assert loaded.user_ids.tolist() == plays.user_ids.tolist()
    np.testing.assert_array_equal(loaded.song_factors, learned.song_factors)
    # The factors themselves depend on where an engine starts (implicit's on its seed, too); how
    # well they tell played from unplayed must not depend on the engine.
    ours, theirs = (
        roc_auc_score(some.user_song.toarray().ravel() > 0, scores(one))
        for one in (loaded, reference)
    )
    assert ours == pytest.approx(theirs, abs=0.01)


def scores(factors: Factors) -> np.ndarray:
    return (factors.user_factors @ factors.song_factors.T).ravel()


def test_what_spark_cannot_do_is_refused_before_it_starts(session, plays, folder):
    known = plays.song_ids.tolist()
    deaf = WmfConfig(n_factors=2, confidence=ConfidenceConfig(alpha=0.0))
    with pytest.raises(ConfigRejected, match=r"confidence\.alpha: expected a number > 0"):
        learn_factors_on_spark(session, folder, known, deaf)
    with pytest.raises(ShapeMismatch, match="such as stranger"):
        learn_factors_on_spark(session, folder, [*known, "stranger"], CONFIG)
    with pytest.raises(EngineFailed, match=r"expected Spark to factorise .*/nowhere"):
        learn_factors_on_spark(session, lambda: folder() / "nowhere", known, CONFIG)
