"""One pass over the users: every model ranks all test songs for each, and a Report comes out.

Shape letters: U users, I test songs, B users of a block, G figures, M models.

Protocol: a user counts when at least one test song is relevant to them (they played it). For each
such user ALL test songs are ranked, and only those; nothing is sampled. Ranks are counted, not
sorted for; coverage and Gini alone need lists, which are made for a seeded sample of the users that
the report names. Memory is flat in U but for what the caller holds: scores exist for a few hundred
users at a time, 4 bytes times ``_SCORES_OF_A_SLICE`` a thread at most.

Where CUDA is, products and counts are made there (needledrop/ranking/device_scores.py).
"""

import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from needledrop.encoders.device import torch_device
from needledrop.errors import ConfigRejected, ShapeMismatch
from needledrop.ranking.bootstrap import PairedBootstrap, ResampledMeans
from needledrop.ranking.device_scores import DeviceScores
from needledrop.ranking.estimates import comparisons_by_pair, figures_by_model
from needledrop.ranking.metrics import Figures
from needledrop.ranking.per_user import N_FIGURES, figures_of_users, popularity_deciles
from needledrop.ranking.report import BootstrapFacts, Report, TopListSample
from needledrop.ranking.scores import FactorScores, Floats, Indices, Scores, hash_order, top_songs

__all__ = ["EvaluationConfig", "Report", "evaluate"]

_USERS_OF_A_BLOCK = 1024
_USERS_OF_A_SLICE = 256
_SCORES_OF_A_SLICE = 1 << 24
"""64 MB: 256 users times 46,728 songs; products of 89 users at a time take a third longer."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How an evaluation is made.

    Attributes:
        n_resamples: bootstrap resamples behind each interval.
        seed: of the resamples, of the sampled top lists and of the order of tied songs.
        n_sampled_users: coverage and Gini are taken from the top lists of so many users at most.
        list_length: the length of those lists.
        n_threads: 0 takes every core that this process may use; the figures don't depend on it.
        device: where scores are computed and compared: ``cpu``, ``cuda``, or ``auto`` for CUDA
            where it is there. Devices round scores differently, in the last bits.
    """

    n_resamples: int = 1000
    seed: int = 0
    n_sampled_users: int = 1000
    list_length: int = 50
    n_threads: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, lowest in (
            ("n_resamples", 100),
            ("seed", 0),
            ("n_sampled_users", 1),
            ("list_length", 1),
            ("n_threads", 0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise ConfigRejected(
                    f"evaluation.{name}: expected a whole number >= {lowest}, got {value!r}; "
                    "correct the configuration"
                )
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigRejected(
                f"evaluation.device: expected auto, cpu or cuda, got {self.device!r}"
            )


def evaluate(
    models: Mapping[str, Scores],
    relevant: sparse.csr_matrix,
    song_ids: Sequence[str] | NDArray[np.str_],
    song_popularity: ArrayLike,
    config: EvaluationConfig | None = None,
    *,
    n_songs_known_to_champion: int | None = None,
    progress: bool = False,
) -> Report:
    """Evaluate models on the same users and the same held-out songs.

    Args:
        models: scores by model name; each covers the U users and I songs of ``relevant``.
        relevant: (U, I) csr, an entry other than 0 where the user played the test song.
        song_ids: (I,) distinct.
        song_popularity: (I,) finite, such as all plays of each test song.
        config: resamples, seeds, threads.
        n_songs_known_to_champion: passed on to the report.
        progress: show a bar over the users on stderr.

    Raises:
        ShapeMismatch: the arrays disagree about users or songs, or no user has a relevant song.
        FactorsRejected: a score isn't finite.
    """
    config = config or EvaluationConfig()
    plays = _checked_relevance(models, relevant, song_ids, song_popularity)
    order = hash_order(song_ids, config.seed)
    decile_of_song = popularity_deciles(song_popularity, song_ids)[order]
    plays = sparse.csr_matrix(plays[:, order])
    plays.sort_indices()
    users = np.flatnonzero(np.diff(plays.indptr)).astype(np.int64)
    ordered = [_placed(model.of_songs(order), config) for model in models.values()]
    with _threads(config.n_threads) as pool:
        means = _resampled_means(ordered, plays, users, decile_of_song, config, pool, progress)
        counts = [_recommended(model, users, config, pool) for model in ordered]
    return Report(
        n_users=len(users),
        n_users_left_out=plays.shape[0] - len(users),
        n_users_without_auc=int((np.diff(plays.indptr) == plays.shape[1]).sum()),
        n_songs=plays.shape[1],
        n_positives=int(plays.nnz),
        models=figures_by_model(list(models), means, counts, plays, decile_of_song),
        comparisons=comparisons_by_pair(list(models), means),
        sample=TopListSample(
            n_users=min(config.n_sampled_users, len(users)),
            list_length=min(config.list_length, plays.shape[1]),
            seed=config.seed,
        ),
        bootstrap=BootstrapFacts(config.n_resamples, config.seed),
        n_songs_known_to_champion=n_songs_known_to_champion,
    )


def _checked_relevance(
    models: Mapping[str, Scores],
    relevant: sparse.csr_matrix,
    song_ids: Sequence[str] | NDArray[np.str_],
    song_popularity: ArrayLike,
) -> sparse.csr_matrix:
    plays = sparse.csr_matrix(relevant.astype(bool))
    plays.sum_duplicates()
    plays.eliminate_zeros()
    popularity = np.asarray(song_popularity)
    if not models:
        raise ShapeMismatch("expected at least one model to evaluate, got none")
    if not len(song_ids) == len(popularity) == plays.shape[1]:
        raise ShapeMismatch(
            f"expected an id and a popularity for each of {plays.shape[1]} test songs, got "
            f"{len(song_ids)} and {len(popularity)}"
        )
    if not np.isfinite(popularity).all():
        raise ShapeMismatch("expected a finite popularity for each test song, got NaN or infinity")
    for name, model in models.items():
        if (model.n_users, model.n_songs) != plays.shape:
            raise ShapeMismatch(
                f"expected scores for {plays.shape} users and test songs, got "
                f"({model.n_users}, {model.n_songs}) from {name}; line its factors up with the "
                "same user and song ids"
            )
    if not plays.nnz:
        raise ShapeMismatch(
            f"expected a user who played a test song, got none among {plays.shape[0]} users and "
            f"{plays.shape[1]} songs; hold out more songs, or songs with plays"
        )
    return plays


def _placed(model: Scores, config: EvaluationConfig) -> Scores:
    """Return the scores where they are to be computed: factors' products move to a GPU."""
    device = torch_device(config.device, "evaluation.device")
    if isinstance(model, FactorScores) and device.type != "cpu":
        return DeviceScores(model, device)
    return model


@contextmanager
def _threads(n_threads: int) -> Iterator[Executor]:
    """One pool for slices of users; BLAS stays within each thread meanwhile."""
    n_threads = n_threads or len(os.sched_getaffinity(0))
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_threads) as pool:
        yield pool


def _slices(users: Indices, n_songs: int) -> list[Indices]:
    """Cut users into slices whose scores fit into a few megabytes."""
    n_slice = max(1, min(_USERS_OF_A_SLICE, _SCORES_OF_A_SLICE // max(1, n_songs)))
    return [users[start : start + n_slice] for start in range(0, len(users), n_slice)]


def _resampled_means(
    models: Sequence[Scores],
    plays: sparse.csr_matrix,
    users: Indices,
    decile_of_song: Indices,
    config: EvaluationConfig,
    pool: Executor,
    progress: bool,
) -> ResampledMeans:
    """Return the means (G, M) and the resampled means (R, G, M) of all figures."""

    def figures_of_slice(job: tuple[Scores, Indices]) -> Figures:
        model, some = job
        scores: Floats | torch.Tensor
        scores = model.rows_on_device(some) if isinstance(model, DeviceScores) else model.rows(some)
        return figures_of_users(scores, plays[some], decile_of_song)

    bootstrap = PairedBootstrap(
        len(users), N_FIGURES, len(models), n_resamples=config.n_resamples, seed=config.seed
    )

    def begun(block: Indices) -> Iterator[Figures]:
        slices = _slices(block, plays.shape[1])
        return pool.map(figures_of_slice, [(model, some) for model in models for some in slices])

    with _progress_bar(len(users), progress) as bar:
        blocks = np.split(users, range(_USERS_OF_A_BLOCK, len(users), _USERS_OF_A_BLOCK))
        coming = deque([begun(blocks[0])])
        for number, block in enumerate(blocks):
            if number + 1 < len(blocks):  # the pool goes on while this thread resamples
                coming.append(begun(blocks[number + 1]))
            rows = np.concatenate(list(coming.popleft()))
            by_model = rows.reshape(len(models), len(block), N_FIGURES)
            bootstrap.add(np.ascontiguousarray(by_model.transpose(1, 2, 0)))
            bar.update(len(block))
    return bootstrap.means()


def _progress_bar(n_users: int, progress: bool) -> "tqdm[NoReturn]":
    seconds = 0.5 if sys.stderr.isatty() else 10.0
    return tqdm(
        total=n_users, desc="ranking", unit="user", mininterval=seconds, disable=not progress
    )


def _recommended(
    model: Scores, users: Indices, config: EvaluationConfig, pool: Executor
) -> NDArray[np.int64]:
    """Return how many of the sampled users' top lists each song is in, (I,) int64."""
    n_sampled = min(config.n_sampled_users, len(users))
    generator = np.random.default_rng(config.seed)
    sample = np.sort(generator.choice(users, n_sampled, replace=False))

    def columns_of_slice(some: Indices) -> Indices:
        return top_songs(model.rows(some), config.list_length)[0].ravel()

    columns = np.concatenate(list(pool.map(columns_of_slice, _slices(sample, model.n_songs))))
    return np.bincount(columns, minlength=model.n_songs)
