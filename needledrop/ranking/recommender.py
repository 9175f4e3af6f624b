"""Songs for listeners, songs like a song, listeners for a song: exactly, from one collection.

Shapes: U listeners, I songs, k factors, B wishes answered together.

A listener who is not known is put between the mean listener and what their liked songs say:

    x = (n x_liked + n_0 x_mean) / (n + n_0)

with n liked songs, x_liked folded in from them (Hu, Koren and Volinsky, eq. 4), and n_0 the weight
of the prior. The mean listener's scores are the songs' popularity as the factors predict it, which
new songs have too.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from needledrop.errors import ConfigRejected
from needledrop.factors.confidence import ConfidenceConfig
from needledrop.factors.fold_in import fold_in_liked
from needledrop.factors.sources import AUDIO, USAGE
from needledrop.factors.wmf import WmfConfig
from needledrop.ranking.collection import Collection, Listeners, Songs
from needledrop.ranking.picking import diverse_order, within_cap
from needledrop.ranking.scores import Floats, Indices, inner_products, top_songs
from needledrop.ranking.similar import gram_of_rows, gram_of_users
from needledrop.ranking.song_index import Filters, SongIndex
from needledrop.ranking.song_search import NearbySearch, Scored, Search

POPULARITY, LIKED = "popularity", "liked_songs"
N_DIVERSE = 1_000
_MOST_REASONS_FROM = 1_000
# A product of a listed song or a reason, in double precision and then sorted, takes as long as so
# many of a score.
_SCORED_AGAIN_COST = 10


@dataclass(frozen=True)
class RecommenderConfig:
    """How listeners who aren't known are placed.

    Attributes:
        confidence: of a liked song, as of one that was played once.
        regularization: lambda of the fold-in. Both should be the factorisation's own, and are by
            default the defaults of that.
        prior_songs: n_0, how many liked songs the mean listener counts as; chosen on listeners
            never seen (benchmarks/listener_prior.py).
    """

    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    regularization: float = WmfConfig().regularization
    prior_songs: float = 0.7

    def __post_init__(self) -> None:
        if not (np.isfinite(self.prior_songs) and self.prior_songs >= 0):
            raise ConfigRejected(f"prior_songs: expected a number >= 0, got {self.prior_songs}")
        if not (np.isfinite(self.regularization) and self.regularization > 0):
            raise ConfigRejected(
                f"regularization: expected a number > 0, got {self.regularization}"
            )


@dataclass(frozen=True)
class Listing:
    """Which part of a ranked list is wanted, and what may stand in it.

    Attributes:
        k: songs or listeners on the page.
        offset: how many come before it.
        filters: songs that may appear.
        exclude_played: leave out what the listener has played (or liked), or who has played it.
        max_per_artist: songs of one artist in the whole list; None for any number.
        diversity: from 0 (by score alone) to 1; the list is then ordered within the best
            ``N_DIVERSE`` songs and ends with them.
        n_because: for each song, how many of the listener's own are named.
    """

    k: int = 25
    offset: int = 0
    filters: Filters = field(default_factory=Filters)
    exclude_played: bool = True
    max_per_artist: int | None = None
    diversity: float = 0.0
    n_because: int = 1

    @property
    def n_wanted(self) -> int:
        """How many songs the list must have for the page to be full."""
        return self.offset + self.k

    @property
    def is_plain(self) -> bool:
        """Whether the order is that of the scores alone."""
        return self.diversity == 0 and self.max_per_artist is None


@dataclass(frozen=True)
class Listener:
    """Whose songs are wanted.

    Attributes:
        user_id: None where only liked songs are given.
        liked: song ids; they speak for a listener who isn't known.
    """

    user_id: str | None = None
    liked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranked:
    """A page of a ranked list.

    Attributes:
        ids: of songs or listeners, best first.
        scores: one each; inner products, or cosines for songs like a song.
        because: for each song, those of the listener's own nearest to it that are available, with
            their cosines.
        fallback: "" for a known listener; "liked_songs" for one placed by those and the mean
            listener; "popularity" for the mean listener alone.
        unknown: ids that were asked about and aren't here.
        n_from_audio: how many of a listener's songs have factors that were predicted from sound.
    """

    ids: list[str]
    scores: list[float]
    because: list[list[tuple[str, float]]] = field(default_factory=list)
    fallback: str = ""
    unknown: tuple[str, ...] = ()
    n_from_audio: int = 0


class Recommender:
    """Answers from one collection. It never changes, so threads may share it.

    Args:
        collection: songs and listeners of one version.
        config: for listeners who aren't known.

    Raises:
        ShapeMismatch: an id comes twice.
        FactorsRejected: a factor isn't finite.
    """

    def __init__(self, collection: Collection, config: RecommenderConfig | None = None) -> None:
        self.version = collection.version
        self.config = config or RecommenderConfig()
        self._listeners = collection.listeners
        self._row_of_user = {
            user_id: row for row, user_id in enumerate(collection.listeners.ids.tolist())
        }
        self._played_by = collection.listeners.played.tocsc()
        users = collection.listeners.factors
        self._mean_listener = users.mean(axis=0) if len(users) else np.zeros(users.shape[1], "f4")
        self.index = SongIndex(collection.songs, gram_of_users(users))
        songs = collection.songs
        self._is_usage = songs.sources == USAGE
        self._song_gram = gram_of_rows(self.index.songs.factors, self._is_usage)

    @property
    def listeners(self) -> Listeners:
        """The listeners that are known."""
        return self._listeners

    def with_songs(self, added: Songs) -> "Recommender":
        """Return a recommender of these songs as well; see :meth:`SongIndex.with_songs`."""
        return self.with_index(self.index.with_songs(added))

    def with_index(self, index: SongIndex) -> "Recommender":
        """Return a recommender of the same listeners and another state of the songs."""
        changed = copy.copy(self)
        changed.index = index
        return changed

    def nearby_search(self, between: Callable[[], None]) -> NearbySearch | None:
        """Return a faster search for songs that are very many, which takes a while to make; None
        where the exact one stays. See :meth:`NearbySearch.tuned`."""
        return NearbySearch.tuned(
            self.index.songs.factors, self._listeners.factors, between=between
        )

    def with_search(self, search: Search) -> "Recommender":
        """Return a recommender that searches otherwise; see :meth:`SongIndex.with_search`."""
        return self.with_index(self.index.with_search(search))

    def warm_up(self) -> None:
        """Go the whole way once, so that the first listener doesn't wait for lazy beginnings."""
        nobody = Listener(), Listing(diversity=0.1, max_per_artist=1)
        self.recommend([nobody], datetime.now(UTC))

    def recommend(self, wishes: Sequence[tuple[Listener, Listing]], now: datetime) -> list[Ranked]:
        """Rank songs for listeners, scored together: one matrix product.

        Args:
            wishes: (B,) who, and what of the list.
            now: the time, with a time zone; a song not yet released then doesn't appear.
        """
        placed = [self._placed(listener) for listener, _ in wishes]
        listings = [listing for _, listing in wishes]
        owns = [own for _, own, _, _ in placed]
        scores = self.index.scores(np.stack([taste for taste, _, _, _ in placed]))
        pages = self._pages(scores, listings, owns, now)
        reasons = self._because([rows for rows, _ in pages], owns, listings, now)
        return [
            Ranked(
                self.index.ids_of(rows),
                values.tolist(),
                because,
                fallback,
                unknown,
                int(np.count_nonzero(self.index.songs.sources[rows] == AUDIO)),
            )
            for (rows, values), because, (_, _, fallback, unknown) in zip(
                pages, reasons, placed, strict=True
            )
        ]

    def n_products(self, wishes: Sequence[tuple[Listener, Listing]]) -> int:
        """Return about how many multiplications :meth:`recommend` takes, told from sizes alone."""
        n_listed = max((listing.n_wanted for _, listing in wishes), default=0)
        n_pairs = len(wishes) * (len(self.index) + _SCORED_AGAIN_COST * n_listed)
        indptr = self._listeners.played.indptr
        for listener, listing in wishes:
            if listing.n_because:
                row = self._row_of_user.get(listener.user_id or "", -1)
                n_own = len(listener.liked) + (
                    int(indptr[row + 1] - indptr[row]) if row >= 0 else 0
                )
                n_pairs += _SCORED_AGAIN_COST * listing.k * min(n_own, _MOST_REASONS_FROM)
        return n_pairs * self.index.n_factors

    def similar(
        self, factors: Floats, listings: Sequence[Listing], own: Sequence[int], now: datetime
    ) -> list[Ranked]:
        """Rank songs by the cosine of their predicted usage pattern with that of queries.

        Args:
            factors: (B, k) of the queries.
            listings: (B,) what of the list.
            own: (B,) the query's own row, which is left out; -1 where it is no song of the index.
            now: as for :meth:`recommend`.
        """
        plain = [replace(listing, exclude_played=True) for listing in listings]
        itself = [np.array([row] if row >= 0 else [], dtype=np.int64) for row in own]
        pages = self._pages(self.index.cosines(factors), plain, itself, now)
        return [Ranked(self.index.ids_of(rows), values.tolist()) for rows, values in pages]

    def listeners_for(
        self, factors: Floats, listings: Sequence[Listing], own: Sequence[int]
    ) -> list[Ranked]:
        """Rank the listeners most likely to play songs.

        Args:
            factors: (B, k) of the songs.
            listings: (B,) k, offset and ``exclude_played``; the rest says nothing here.
            own: (B,) each song's row in the index; -1 where it has none, and nobody has played it.
        """
        users = self._listeners
        scores = inner_products(factors, users.factors)
        answers = []
        for row, listing, song in zip(scores, listings, own, strict=True):
            if listing.exclude_played and 0 <= song < self._played_by.shape[1]:
                start, stop = self._played_by.indptr[song : song + 2]
                row[self._played_by.indices[start:stop]] = -np.inf
            columns, values = _best(row, listing.offset + listing.k)
            page = slice(listing.offset, listing.offset + listing.k)
            answers.append(Ranked(users.ids[columns[page]].tolist(), values[page].tolist()))
        return answers

    def _placed(self, listener: Listener) -> tuple[Floats, Indices, str, tuple[str, ...]]:
        """Return a listener's taste (k,), own songs' rows, fallback, and ids that aren't here."""
        row = self._row_of_user.get(listener.user_id or "", -1) if listener.user_id else -1
        liked = list(dict.fromkeys(listener.liked))
        rows = self.index.rows_of(liked)
        unknown = [song_id for song_id, at in zip(liked, rows.tolist(), strict=True) if at < 0]
        liked_rows = rows[rows >= 0]
        if row >= 0:
            taste: Floats = self._listeners.factors[row]
            played = self.played_rows(row)
            if len(liked_rows):
                played = np.concatenate([played, np.setdiff1d(liked_rows, played)])
            return taste, played, "", tuple(unknown)
        if listener.user_id is not None:
            unknown.insert(0, listener.user_id)
        if not len(liked_rows):
            return self._mean_listener, liked_rows, POPULARITY, tuple(unknown)
        return self.taste_of_liked(liked_rows), liked_rows, LIKED, tuple(unknown)

    def played_rows(self, listener: int) -> Indices:
        """Return the rows of the songs that a listener has played, the most played ones first."""
        start, stop = self._listeners.played.indptr[listener : listener + 2]
        rows = self._listeners.played.indices[start:stop]
        counts = self._listeners.played.data[start:stop]
        ordered: Indices = rows[np.argsort(-counts, kind="stable")].astype(np.int64)
        return ordered

    def taste_of_liked(self, rows: Indices) -> Floats:
        """Return the taste (k,) float32 of a listener of whom only liked songs (n,) are known."""
        config = self.config
        one_play = 1.0 + config.confidence.alpha * np.log1p(1.0 / config.confidence.epsilon)
        is_usage = np.zeros(len(rows), dtype=np.bool_)
        is_old = rows < len(self._is_usage)
        is_usage[is_old] = self._is_usage[rows[is_old]]
        folded = fold_in_liked(
            self._song_gram,
            self.index.songs.factors[rows],
            is_usage,
            float(one_play),
            config.regularization,
        )
        share = len(rows) / (len(rows) + config.prior_songs)
        blended: Floats = (share * folded + (1 - share) * self._mean_listener).astype(np.float32)
        return blended

    def _pages(
        self,
        scores: Scored,
        listings: Sequence[Listing],
        owns: Sequence[Indices],
        now: datetime,
    ) -> list[tuple[Indices, Floats]]:
        """Return each row's page: rows and scores of songs. What may not appear is hidden."""
        hidden = {
            filters: self.index.hidden(filters, now)
            for filters in {listing.filters for listing in listings}
        }
        for row, (listing, own) in enumerate(zip(listings, owns, strict=True)):
            scores.hide(row, hidden[listing.filters])
            if listing.exclude_played:
                scores.hide(row, own)
        plain = [row for row, listing in enumerate(listings) if listing.is_plain]
        n_wanted = max((listings[row].n_wanted for row in plain), default=0)
        best = dict(zip(plain, scores.best_of_all(plain, n_wanted), strict=True))
        pages = []
        for row, listing in enumerate(listings):
            rows, picked = best[row] if row in best else self._picked(scores, row, listing)
            page = slice(listing.offset, listing.n_wanted)
            pages.append((rows[page], picked[page]))
        return pages

    def _picked(self, scores: Scored, row: int, listing: Listing) -> tuple[Indices, Floats]:
        n_wanted = listing.n_wanted
        n_pool = N_DIVERSE if listing.diversity > 0 else n_wanted
        rows, values = scores.best(row, n_pool)
        n_looked_at = n_pool
        while listing.max_per_artist is not None:
            within = within_cap(self.index.artists_of(rows), listing.max_per_artist)
            if within.sum() >= n_pool or len(rows) < n_looked_at:
                rows, values = rows[within][:n_pool], values[within][:n_pool]
                break
            n_looked_at *= 4
            rows, values = scores.best(row, n_looked_at)
        if listing.diversity > 0:
            directions = self.index.directions(self.index.songs.factors[rows])
            order = diverse_order(values, directions, listing.diversity, n_wanted)
            rows, values = rows[order], values[order]
        return rows, values

    def _because(
        self,
        pages: Sequence[Indices],
        owns: Sequence[Indices],
        listings: Sequence[Listing],
        now: datetime,
    ) -> list[list[list[tuple[str, float]]]]:
        """Return, for each song of each page, the listener's own songs of nearest usage pattern."""
        starts = np.cumsum([0, *map(len, pages)])
        queries = self.index.pattern_queries(np.concatenate(pages))
        reasons: list[list[list[tuple[str, float]]]] = []
        for start, rows, own, listing in zip(starts, pages, owns, listings, strict=False):
            own = self.index.available(own, listing.filters.region, now)[:_MOST_REASONS_FROM]
            if listing.n_because == 0 or not len(own) or not len(rows):
                reasons.append([[] for _ in rows])
                continue
            cosines = self.index.cosines_with(queries[start : start + len(rows)], own)
            if not listing.exclude_played:  # else none of their own is in the list
                cosines[rows[:, np.newaxis] == own] = 0  # no song is a reason for itself
            columns, values = top_songs(cosines, listing.n_because)
            ids = iter(self.index.ids_of(own[columns.ravel()]))
            reasons.append(
                [
                    [
                        (song_id, cosine)
                        for cosine, song_id in zip(near, ids, strict=False)
                        if cosine > 0
                    ]
                    for near in values.tolist()
                ]
            )
        return reasons


def _best(scores: Floats, n_best: int) -> tuple[Indices, Floats]:
    """Return the best columns (n,) and scores of a row; those at minus infinity aren't there."""
    columns, values = top_songs(scores[np.newaxis], n_best)
    there: NDArray[np.bool_] = values[0] > -np.inf
    return columns[0][there], values[0][there]
