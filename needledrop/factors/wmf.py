"""Weighted matrix factorisation: confidence -> latent factors of users and songs.

The objective of Hu, Koren and Volinsky (ICDM 2008), over ALL pairs of user u and song i:

    sum_ui c_ui (p_ui - x_u^T y_i)^2 + lambda (sum_u |x_u|^2 + sum_i |y_i|^2)

with p_ui = 1 where something was played, else 0, solved by alternating least squares through
``implicit``. ``implicit`` reads a stored value as c_ui and takes c_ui = 1 for every absent pair;
so the matrix holds c_ui itself and its own ``alpha`` is 1 (another alpha would multiply twice).

Shapes: U users, I songs, k factors.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy import sparse
from threadpoolctl import threadpool_limits

from needledrop.artifacts import fingerprint_of_folder, read_json, whole_folder, write_json
from needledrop.errors import ArtifactBroken, ConfigRejected, ShapeMismatch
from needledrop.factors.confidence import ConfidenceConfig, confidence_from_plays
from needledrop.factors.fold_in import fold_in_rows
from needledrop.plays.triplets import Plays

_PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class WmfConfig:
    """What the factorisation is made with.

    Attributes:
        n_factors: k.
        regularization: lambda.
        n_iterations: pairs of half-steps.
        solver: of implicit: ``cholesky`` solves each half-step exactly; ``cg`` takes three
            warm-started conjugate-gradient steps, which is faster from about a hundred factors on.
        seed: of the factors that the first half-step starts from.
        confidence: how play counts become confidence.
        engine: ``implicit``, in this process's memory; ``torch`` (torch_wmf.py), likewise, faster
            and on a GPU where there is one; or ``spark`` (spark_wmf.py).
    """

    n_factors: int = 50
    regularization: float = 100.0
    n_iterations: int = 15
    solver: str = "cholesky"
    seed: int = 0
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    engine: str = "implicit"

    def __post_init__(self) -> None:
        if not 1 <= self.n_factors <= 4096:
            raise ConfigRejected(f"wmf.n_factors: expected 1 to 4096, got {self.n_factors}")
        if not (math.isfinite(self.regularization) and self.regularization > 0):
            raise ConfigRejected(
                f"wmf.regularization: expected a number > 0, got {self.regularization}"
            )
        if not 1 <= self.n_iterations <= 1000:
            raise ConfigRejected(f"wmf.n_iterations: expected 1 to 1000, got {self.n_iterations}")
        if self.solver not in ("cholesky", "cg"):
            raise ConfigRejected(f"wmf.solver: expected cholesky or cg, got {self.solver!r}")
        if not 0 <= self.seed < 2**32:
            raise ConfigRejected(f"wmf.seed: expected 0 to {2**32 - 1}, got {self.seed}")
        if self.engine not in ("implicit", "torch", "spark"):
            raise ConfigRejected(
                f"wmf.engine: expected implicit, torch or spark, got {self.engine!r}"
            )


@dataclass(frozen=True)
class Factors:
    """Latent factors and the ids of their rows.

    Attributes:
        user_factors: (U, k) float32.
        song_factors: (I, k) float32.
        user_ids: (U,) str.
        song_ids: (I,) str.
        config: what they were learned with; fold-in needs the same lambda and confidence.
        losses: the objective's value after each iteration.
    """

    user_factors: NDArray[np.float32]
    song_factors: NDArray[np.float32]
    user_ids: NDArray[np.str_]
    song_ids: NDArray[np.str_]
    config: WmfConfig
    losses: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, rows, ids in (
            ("user_factors", self.user_factors, self.user_ids),
            ("song_factors", self.song_factors, self.song_ids),
        ):
            if rows.shape != (len(ids), self.config.n_factors):
                raise ShapeMismatch(
                    f"expected {name} of shape {(len(ids), self.config.n_factors)}, "
                    f"got {rows.shape}; rows and ids must belong together"
                )

    @property
    def n_factors(self) -> int:
        """k."""
        return self.config.n_factors

    def with_listeners_of(self, plays: Plays) -> "Factors":
        """Return these factors with listeners of whom some plays alone are known.

        The songs keep their factors; the listeners are solved anew, from those plays alone. So a
        song that is not among them is new to the listeners.

        Args:
            plays: of songs that these factors know, and of these users or some of them, who are
                those that the result has.
        """
        rows = np.searchsorted(self.song_ids, plays.song_ids)
        song_factors = self.song_factors[rows]
        confidence = confidence_from_plays(plays.user_song, self.config.confidence)
        user_factors = fold_in_rows(confidence, song_factors, self.config.regularization)
        return replace(
            self,
            user_factors=user_factors,
            song_factors=song_factors,
            user_ids=plays.user_ids,
            song_ids=plays.song_ids,
        )

    def fold_in_songs(self, plays: Plays) -> NDArray[np.float32]:
        """Return (I', k) factors of the plays' songs, solved against these users.

        Users that these factors do not know say nothing.
        """
        song_user = _align_columns(plays.user_song.T.tocsr(), plays.user_ids, self.user_ids)
        confidence = confidence_from_plays(song_user, self.config.confidence)
        return fold_in_rows(confidence, self.user_factors, self.config.regularization)

    def save(self, folder: Path) -> None:
        """Write the factors as one folder, whole or not at all."""
        with whole_folder(folder) as temporary:
            save_file(
                {
                    "user_factors": np.ascontiguousarray(self.user_factors),
                    "song_factors": np.ascontiguousarray(self.song_factors),
                },
                temporary / "factors.safetensors",
            )
            write_json(temporary / "user_ids.json", self.user_ids.tolist())
            write_json(temporary / "song_ids.json", self.song_ids.tolist())
            write_json(
                temporary / "factors.json", {"config": asdict(self.config), "losses": self.losses}
            )

    @classmethod
    def load(cls, folder: Path) -> "Factors":
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactBroken: the folder is not a whole factors artifact.
        """
        about = read_json(folder / "factors.json")
        try:
            arrays = load_file(folder / "factors.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise ArtifactBroken(
                f"{folder}: expected factors.safetensors, got {error}; run factorize_plays again"
            ) from error
        settings = dict(about["config"])
        settings["confidence"] = ConfidenceConfig(**settings["confidence"])
        return cls(
            user_factors=arrays["user_factors"],
            song_factors=arrays["song_factors"],
            user_ids=np.array(read_json(folder / "user_ids.json"), dtype=np.str_),
            song_ids=np.array(read_json(folder / "song_ids.json"), dtype=np.str_),
            config=WmfConfig(**settings),
            losses=tuple(about["losses"]),
        )


def fingerprint_of_factors(folder: Path) -> str:
    """SHA-256 of a saved factors folder: factors of two factorisations never share it."""
    return fingerprint_of_folder(folder)


def learn_factors(
    plays: Plays,
    config: WmfConfig | None = None,
    *,
    on_iteration: Callable[[int, float], None] | None = None,
) -> Factors:
    """Factorise plays.

    The users take one exact half-step more at the end, so that each stands at its optimum for the
    songs' factors and equals its own fold-in.

    Args:
        plays: without those of the test songs.
        config: k, lambda and the rest.
        on_iteration: called with the iteration's number from 0 and the objective's value.
    """
    config = config or WmfConfig()
    confidence = confidence_from_plays(plays.user_song, config.confidence)
    model = AlternatingLeastSquares(
        factors=config.n_factors,
        regularization=config.regularization,
        alpha=1.0,  # c_ui itself is stored
        iterations=config.n_iterations,
        use_cg=config.solver == "cg",
        random_state=config.seed,
    )
    losses: list[float] = []

    def record(iteration: int, _seconds: float, _loss: float | None) -> None:
        losses.append(
            wmf_loss(confidence, model.user_factors, model.item_factors, config.regularization)
        )
        if on_iteration:
            on_iteration(iteration, losses[-1])

    with threadpool_limits(1, "blas"):  # implicit runs threads of its own; both at once are slower
        model.fit(confidence, show_progress=False, callback=record)
        user_factors = fold_in_rows(confidence, model.item_factors, config.regularization)
    losses.append(wmf_loss(confidence, user_factors, model.item_factors, config.regularization))
    return Factors(
        user_factors=user_factors,
        song_factors=model.item_factors.astype(np.float32),
        user_ids=plays.user_ids,
        song_ids=plays.song_ids,
        config=config,
        losses=tuple(losses),
    )


def wmf_loss(
    confidence: sparse.csr_matrix,
    user_factors: NDArray[np.floating],
    song_factors: NDArray[np.floating],
    regularization: float,
) -> float:
    """Return the objective over all U x I pairs, without visiting them.

    The pairs that were never played contribute (x_u^T y_i)^2, whose sum over ALL pairs is
    trace(X^T X Y^T Y); the played pairs are then corrected one by one.

    Args:
        confidence: (U, I) csr of c_ui.
        user_factors: (U, k).
        song_factors: (I, k).
        regularization: lambda.
    """
    users = user_factors.astype(np.float64)
    songs = song_factors.astype(np.float64)
    loss = float(np.sum((users.T @ users) * (songs.T @ songs)))
    rows = np.repeat(np.arange(confidence.shape[0]), np.diff(confidence.indptr))
    for start in range(0, confidence.nnz, _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        scores = np.einsum("nk,nk->n", users[rows[part]], songs[confidence.indices[part]])
        weights = confidence.data[part].astype(np.float64)
        loss += float(np.sum(weights * (1.0 - scores) ** 2 - scores**2))
    return loss + regularization * float(np.sum(users**2) + np.sum(songs**2))


def _align_columns(
    rows: sparse.csr_matrix, have: NDArray[np.str_], want: NDArray[np.str_]
) -> sparse.csr_matrix:
    """Reorder columns from the ids ``have`` to the ids ``want``; columns not wanted fall away."""
    place = {identifier: column for column, identifier in enumerate(want.tolist())}
    target = np.array([place.get(identifier, -1) for identifier in have.tolist()], dtype=np.int64)
    entries = rows.tocoo()
    known = target[entries.col] >= 0
    return sparse.csr_matrix(
        (entries.data[known], (entries.row[known], target[entries.col[known]])),
        shape=(rows.shape[0], len(want)),
    )
