"""What held-out songs ask of a model: their plays, their clips, and the users to rank them for.

Validation while training and the test at the end are the same question over different songs.

Shapes: U users, n held-out songs, k factors.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.frontend import ClipFeatures
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.model import Listeners, Model, NewSongs
from needledrop.errors import InputError
from needledrop.factors.wmf import Factors
from needledrop.plays.split import Split
from needledrop.plays.triplets import Plays
from needledrop.ranking.metrics import average_precision, placements_of_relevant
from needledrop.ranking.report import CUTOFF
from needledrop.ranking.scores import FactorScores, Indices, Scores, hash_order

_USERS_AT_ONCE = 1024
_N_ASKED = 20_000


@dataclass(frozen=True)
class HeldOutSongs:
    """Held-out songs that were played and can be heard.

    Attributes:
        plays: of these songs alone, by all U users of the factors, in their order.
        factors: of users and training songs; they know nothing of these songs.
        clips: (n,) features, in the order of ``plays.song_ids``; read when they are heard.
        n_unheard: held-out songs whose clip could not be used; nothing can be asked about them.
    """

    plays: Plays
    factors: Factors
    clips: Sequence[ClipFeatures]
    n_unheard: int

    @classmethod
    def select(
        cls, song_ids: Collection[str], plays: Plays, factors: Factors, store: FeatureStore
    ) -> "HeldOutSongs":
        """Take those of some songs that have features.

        Raises:
            InputError: none has.
        """
        audible = [song_id for song_id in sorted(song_ids) if song_id in store]
        if not audible:
            raise InputError(
                f"expected held-out songs with usable clips, got none of {len(song_ids)}; "
                "check the report on rejected clips"
            )
        return cls(
            plays.of_songs(audible),
            factors,
            store.clips(audible),
            len(song_ids) - len(audible),
        )

    @classmethod
    def of_validation(
        cls, split: Split, plays: Plays, factors: Factors, store: FeatureStore
    ) -> "HeldOutSongs":
        """Take the validation songs, for listeners who are known by plays of training songs alone.

        Args:
            split: which songs are which.
            plays: of training and validation songs at least.
            factors: learned from plays of both.
            store: features of the songs.

        Raises:
            InputError: none of them has features.
        """
        listeners = factors.with_listeners_of(plays.of_songs(split.train.tolist()))
        return cls.select(split.validation.tolist(), plays, listeners, store)

    @classmethod
    def of_validation_for_the_asked(
        cls, split: Split, plays: Plays, factors: Factors, store: FeatureStore
    ) -> "HeldOutSongs":
        """Take the same with those listeners alone whom the mean average precision asks.

        It is the same to the bit, and no others are folded in: at 400 factors a million of them
        take over an hour.

        Args:
            split, plays, factors, store: as for :meth:`of_validation`.

        Raises:
            InputError: no validation song has features.
        """
        whole = cls.select(split.validation.tolist(), plays, factors, store)
        asked = _asked(whole.relevant, _N_ASKED, 0)
        known = plays.of_songs(split.train.tolist()).of_users(asked)
        return replace(
            whole, plays=whole.plays.of_users(asked), factors=factors.with_listeners_of(known)
        )

    @property
    def song_ids(self) -> NDArray[np.str_]:
        """(n,) str, sorted."""
        return self.plays.song_ids

    @property
    def relevant(self) -> sparse.csr_matrix:
        """(U, n) csr: what each user played."""
        return self.plays.user_song

    @property
    def popularity(self) -> NDArray[np.int64]:
        """(n,) int64: the users who played each song."""
        return np.bincount(self.relevant.indices, minlength=len(self.song_ids))

    def mean_average_precision(
        self, song_factors: NDArray[np.float32], *, n_users: int = _N_ASKED, seed: int = 0
    ) -> float:
        """Return mAP@500 of predicted factors (n, k).

        Args:
            song_factors: in the order of :attr:`song_ids`.
            n_users: a seeded sample of so many users at most, so that it stays fast.
            seed: of the sample.
        """
        scores = FactorScores(self.factors.user_factors, song_factors)
        return self.precision_of_scores(scores, n_users=n_users, seed=seed)

    def precision_of_scores(
        self, scores: Scores, *, n_users: int = _N_ASKED, seed: int = 0
    ) -> float:
        """Return mAP@500 of scores (U, n), over the same listeners.

        Songs that score alike are ranked as the evaluation ranks them, not by their ids.
        """
        ordered = scores.of_songs(self._order)
        users = _asked(self.relevant, n_users, seed)
        precision = []
        for start in range(0, len(users), _USERS_AT_ONCE):
            block = users[start : start + _USERS_AT_ONCE]
            played = self._ordered_relevant[block]
            placed = placements_of_relevant(
                ordered.rows(block),
                played.indptr.astype(np.int64),
                played.indices.astype(np.int64),
            )
            precision.append(average_precision(placed.user, placed.rank, len(block), CUTOFF))
        return float(np.mean(np.concatenate(precision)))

    @cached_property
    def _order(self) -> Indices:
        return hash_order(self.song_ids, 0)  # the seed of an evaluation, unless it is told another

    @cached_property
    def _ordered_relevant(self) -> sparse.csr_matrix:
        relevant = sparse.csr_matrix(self.relevant[:, self._order])
        relevant.sort_indices()
        return relevant

    @property
    def new_songs(self) -> NewSongs:
        """What models are asked to score."""
        return NewSongs(self.clips, self.plays)

    def scores_of(self, model: Model, known_plays: Plays) -> Scores:
        """Return a model's scores.

        Args:
            model: any of them, the oracle too.
            known_plays: of the songs that the factors know, by the same users.
        """
        return model.scores(Listeners(self.factors, known_plays), self.new_songs)

    def scores_of_champion(self, champion: Bundle, training_plays: Plays) -> FactorScores:
        """Return the scores of a bundle that lives in another space.

        Its users are folded in from the same training plays that the candidate's users come from.
        """
        return FactorScores(
            champion.fold_in_users(training_plays), champion.encoder.factors(self.clips)
        )


def _asked(relevant: sparse.csr_matrix, n_users: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of users who played a song; of many a seeded sample, ascending."""
    users = np.flatnonzero(np.diff(relevant.indptr)).astype(np.int64)
    if len(users) > n_users:
        users = np.sort(np.random.default_rng(seed).choice(users, n_users, replace=False))
    return users
