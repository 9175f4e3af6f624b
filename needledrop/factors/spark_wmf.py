"""Weighted matrix factorisation on Spark, for plays that no single machine's memory holds.

Spark's ALS (``implicitPrefs``) reads a stored rating r as c_ui = 1 + alpha r; so the rating is
c_ui - 1 and its own ``alpha`` is 1. Its regularisation isn't ours: it weighs |x_u|^2 by the number
of u's songs, and |y_i|^2 by the number of i's listeners (ALS-WR, Zhou et al. 2008),

    sum_ui c_ui (p_ui - x_u^T y_i)^2 + rho (sum_u n_u |x_u|^2 + sum_i n_i |y_i|^2)

No rho gives the same optimum as a lambda. It is taken as lambda / sqrt(mean n_u * mean n_i), which
weighs the average row as lambda does. Then both sides are brought to the scale at which our own
objective is smallest, and a few of its exact half-steps follow (the very fold-in of
needledrop/factors/fold_in.py, in blocks on the executors), the users' last. So the songs' factors
come to where our objective wants them, and each user equals its own fold-in, as after
``learn_factors``.

The plays are read by pyarrow, a row group at a time, wherever a task finds them: a folder that all
machines see, or each machine's own copy from an object store. Spark's own reader would want
Hadoop's S3 client, and credentials in another form.

pyspark is imported when it is used: nothing else in needledrop needs it, or Java.

Shapes: U users, I songs, k factors.
"""

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from needledrop.errors import ConfigRejected, EngineFailed, ShapeMismatch
from needledrop.factors.fold_in import fold_in_rows
from needledrop.factors.wmf import Factors, WmfConfig, wmf_loss

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_N_EXACT_SWEEPS = 3
"""On 67,000 pairs, 50 factors: 1.8 % above implicit's objective after one, 0.4 % after three."""

_PLAYS = pa.schema({"user_id": pa.string(), "song_id": pa.string(), "play_count": pa.int64()})
_ROWS_AT_ONCE = 1 << 16
_HALF_STEP = "row int, factors array<float>, loss double"


@dataclass(frozen=True)
class SparkFactorization:
    """What a factorisation on Spark gave.

    Attributes:
        factors: as ``learn_factors`` returns them; the objective's value is known at the end alone.
        n_listeners: (I,) of each song.
    """

    factors: Factors
    n_listeners: NDArray[np.int64]


def spark_session(master: str = "") -> "SparkSession":
    """Return the session of this program: spark-submit's, or one of this machine.

    Args:
        master: such as ``local[2]``; empty for what spark-submit says.

    Raises:
        EngineFailed: there is no pyspark, or no Java.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise EngineFailed(
            "expected pyspark for wmf_engine=spark, found none; install it (its version is in the "
            "lock), take the image needledrop-spark, or set wmf_engine=implicit"
        ) from None
    # Executors that are processes of this machine run this very Python, and speak on loopback.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("needledrop-wmf").config("spark.ui.enabled", "false")
    if master.startswith("local"):
        for setting in ("spark.driver.host", "spark.driver.bindAddress"):
            builder = builder.config(setting, "127.0.0.1")
    if master:
        builder = builder.master(master)
    try:
        session = builder.getOrCreate()
    except (PySparkException, OSError) as error:
        raise EngineFailed(
            f"expected Spark to start, got: {' '.join(str(error).split())[:300]}; it needs Java 17 "
            "or 21 (apt-get install openjdk-17-jre-headless)"
        ) from None
    session.sparkContext.setLogLevel("ERROR")
    return session


def learn_factors_on_spark(
    session: "SparkSession",
    find_plays: Callable[[], Path],
    song_ids: Iterable[str],
    config: WmfConfig | None = None,
) -> SparkFactorization:
    """Factorise the plays of some songs.

    Args:
        session: where it runs.
        find_plays: returns the folder of accepted plays, as ``Plays.save`` writes it; called by
            this process and by every executor's, each on its own machine.
        song_ids: the songs that may be looked at; each has plays.
        config: k, lambda and the rest; the solver is Spark's own.

    Raises:
        ConfigRejected: alpha is 0, which Spark's ratings can't say.
        ShapeMismatch: a song is not among the plays.
        EngineFailed: Spark gave up.
    """
    from pyspark.errors import PySparkException

    config = config or WmfConfig()
    if config.confidence.alpha == 0:
        raise ConfigRejected(
            "confidence.alpha: expected a number > 0 with wmf_engine=spark, which takes a rating "
            "of 0 for no play, got 0; raise it, or set wmf_engine=implicit"
        )
    try:
        return _factorization(session, find_plays, song_ids, config)
    except (PySparkException, pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise EngineFailed(
            f"expected Spark to factorise {find_plays()}, got: {reason}; look into the driver's "
            "log, and give it more memory or executors"
        ) from error


def _factorization(
    session: "SparkSession",
    find_plays: Callable[[], Path],
    song_ids: Iterable[str],
    config: WmfConfig,
) -> SparkFactorization:
    users = _texts(find_plays() / "users.parquet", "user_id")
    songs = np.unique(np.array(list(song_ids), dtype=np.str_))
    unknown = np.setdiff1d(songs, _texts(find_plays() / "songs.parquet", "song_id"))
    if len(unknown):
        raise ShapeMismatch(
            f"expected songs that have plays, got {len(unknown)} without, such as {unknown[0]}; "
            "was the split made from other plays?"
        )
    pairs = _rated_pairs(session, find_plays, users, songs, config).persist()
    try:
        by_song = pairs.groupBy("song").count().toPandas()
        n_listeners = np.zeros(len(songs), np.int64)
        n_listeners[by_song["song"]] = by_song["count"]
        n_pairs = int(n_listeners.sum())
        n_active = pairs.select("user").distinct().count(), int((n_listeners > 0).sum())
        weight = n_pairs / math.sqrt(max(1, n_active[0] * n_active[1]))
        users_x, songs_y = _by_als(pairs, len(users), len(songs), config, weight)
        # Scaled against one another, the scores stay; the sum of squares is smallest where equal.
        songs_y *= math.sqrt(np.linalg.norm(users_x) / max(float(np.linalg.norm(songs_y)), 1e-12))
        users_x, _ = _half_step(session, pairs, "user", len(users), songs_y, config)
        for _ in range(_N_EXACT_SWEEPS):
            songs_y, _ = _half_step(session, pairs, "song", len(songs), users_x, config)
            users_x, loss = _half_step(session, pairs, "user", len(users), songs_y, config)
    finally:
        pairs.unpersist()
    factors = Factors(users_x, songs_y, users, songs, config, (loss,))
    return SparkFactorization(factors, n_listeners)


def _texts(file: Path, column: str) -> NDArray[np.str_]:
    texts = pq.read_table(file, columns=[column]).column(column).to_pylist()
    return np.sort(np.array(texts, dtype=np.str_))


def _played_pairs(session: "SparkSession", find_plays: Callable[[], Path]) -> "DataFrame":
    """Return (user_id, song_id, play_count); one task for each row group of the file."""
    n_groups = pq.ParquetFile(find_plays() / "plays.parquet").num_row_groups

    def rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        groups = [int(number) for batch in batches for number in batch.column(0).to_pylist()]
        if groups:  # most partitions of an empty file have none
            file = pq.ParquetFile(find_plays() / "plays.parquet")
            for batch in file.iter_batches(
                _ROWS_AT_ONCE, row_groups=groups, columns=_PLAYS.names, use_threads=False
            ):
                yield from pa.Table.from_batches([batch]).cast(_PLAYS).to_batches()

    numbers = session.range(0, n_groups, 1, max(1, n_groups))
    return numbers.mapInArrow(rows, "user_id string, song_id string, play_count long")


def _rated_pairs(
    session: "SparkSession",
    find_plays: Callable[[], Path],
    users: NDArray[np.str_],
    songs: NDArray[np.str_],
    config: WmfConfig,
) -> "DataFrame":
    """Return (user, song, rating) with the rows' numbers, and c_ui - 1 as the rating."""
    from pyspark.sql import functions as f

    def numbered(ids: NDArray[np.str_], name: str) -> "DataFrame":
        columns = {f"{name}_id": ids.astype(object), name: np.arange(len(ids), dtype=np.int32)}
        return session.createDataFrame(pd.DataFrame(columns))

    logarithm = f.log1p(f.col("play_count") / config.confidence.epsilon)
    return (
        _played_pairs(session, find_plays)
        .join(f.broadcast(numbered(songs, "song")), "song_id")
        .join(numbered(users, "user"), "user_id")
        .select("user", "song", (config.confidence.alpha * logarithm).cast("float").alias("rating"))
    )


def _by_als(
    pairs: "DataFrame", n_users: int, n_songs: int, config: WmfConfig, mean_weight: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (U, k) and (I, k) as Spark's ALS gives them; rows without plays are zero."""
    from pyspark.ml.recommendation import ALS

    n_blocks = pairs.sparkSession.sparkContext.defaultParallelism
    als = ALS(
        rank=config.n_factors,
        maxIter=config.n_iterations,
        regParam=config.regularization / mean_weight,
        implicitPrefs=True,
        alpha=1.0,  # the rating is c_ui - 1 itself
        nonnegative=False,
        userCol="user",
        itemCol="song",
        ratingCol="rating",
        seed=config.seed,
        numUserBlocks=n_blocks,
        numItemBlocks=n_blocks,
    )
    model = als.fit(pairs)
    return (
        _rows(model.userFactors.toPandas(), "id", "features", n_users, config.n_factors),
        _rows(model.itemFactors.toPandas(), "id", "features", n_songs, config.n_factors),
    )


def _half_step(
    session: "SparkSession",
    pairs: "DataFrame",
    side: str,
    n_rows: int,
    fixed_factors: NDArray[np.float32],
    config: WmfConfig,
) -> tuple[NDArray[np.float32], float]:
    """Solve all rows of a side exactly against the other side's factors, in blocks of rows.

    Returns:
        (n, k), and the objective's value.
    """
    other = "song" if side == "user" else "user"
    fixed, regularization = session.sparkContext.broadcast(fixed_factors), config.regularization
    of_fixed = regularization * float(np.sum(fixed_factors.astype(np.float64) ** 2))

    def solved(frames: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
        block = pd.concat(list(frames), ignore_index=True)
        if block.empty:
            return
        rows, places = np.unique(block[side].to_numpy(), return_inverse=True)
        confidence = sparse.csr_matrix(
            (1 + block["rating"].to_numpy(), (places, block[other].to_numpy())),
            shape=(len(rows), len(fixed.value)),
            dtype=np.float32,
        )
        factors = fold_in_rows(confidence, fixed.value, regularization)
        losses = np.zeros(len(rows))
        losses[0] = wmf_loss(confidence, factors, fixed.value, regularization) - of_fixed
        yield pd.DataFrame({"row": rows, "factors": list(factors), "loss": losses})

    blocks = pairs.repartition(side).mapInPandas(solved, _HALF_STEP)
    answer = blocks.toPandas()
    fixed.unpersist()
    factors = _rows(answer, "row", "factors", n_rows, config.n_factors)
    return factors, float(answer["loss"].sum()) + of_fixed


def _rows(frame: Any, number: str, column: str, n_rows: int, n_factors: int) -> NDArray[np.float32]:
    factors = np.zeros((n_rows, n_factors), np.float32)
    if len(frame):
        factors[frame[number].to_numpy()] = np.stack(frame[column].to_numpy())
    return factors
