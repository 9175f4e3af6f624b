"""Answers about small collections, against a loop over the definition."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from needledrop.errors import FactorsRejected, ShapeMismatch
from needledrop.factors.fold_in import fold_in_rows
from needledrop.ranking.recommender import (
    LIKED,
    POPULARITY,
    Listener,
    Listing,
    Recommender,
    RecommenderConfig,
)
from needledrop.ranking.song_index import Filters
from tests.ranking.collections import collection_of, songs_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)

filters = st.builds(
    Filters,
    newer_than=st.sampled_from([None, 1990, 2010, 2021]),
    only_unplayed=st.booleans(),
    region=st.sampled_from(["", "DE", "FR", "US"]),
)
listings = st.builds(
    Listing,
    k=st.integers(1, 40),
    offset=st.integers(0, 5),
    filters=filters,
    exclude_played=st.booleans(),
    max_per_artist=st.sampled_from([None, 1, 2]),
    diversity=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    n_because=st.integers(0, 3),
)
listeners = st.builds(
    Listener,
    user_id=st.sampled_from([None, "user0", "user3", "nobody"]),
    liked=st.lists(st.sampled_from(["SO0", "SO1", "SO7", "SO29", "SO99"]), max_size=3).map(tuple),
)


def may_appear(collection, row: int, asked: Filters) -> bool:
    songs = collection.songs
    return not (
        songs.is_withdrawn[row]
        or (
            not np.isnat(songs.available_from[row])
            and songs.available_from[row] > np.datetime64("2026-01-01")
        )
        or (asked.region and asked.region in songs.blocked_regions[row].split())
        or (asked.newer_than is not None and songs.years[row] <= asked.newer_than)
        or (asked.newer_than is not None and songs.years[row] == 0)
        or (asked.only_unplayed and songs.n_plays[row] > 0)
    )


def plays_of(collection, listener: Listener) -> set[str]:
    own = set(listener.liked) & set(collection.songs.ids.tolist())
    if listener.user_id in collection.listeners.ids:
        number = collection.listeners.ids.tolist().index(listener.user_id)
        own |= set(collection.songs.ids[collection.listeners.played[[number]].indices].tolist())
    return own


@given(st.integers(0, 20), st.lists(st.tuples(listeners, listings), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_no_answer_breaks_a_filter(seed, wishes):
    collection = collection_of(seed=seed)
    answers = Recommender(collection).recommend(wishes, NOW)
    rows = {song_id: row for row, song_id in enumerate(collection.songs.ids.tolist())}
    for (listener, listing), answer in zip(wishes, answers, strict=True):
        assert len(answer.ids) == len(set(answer.ids)) == len(answer.scores) == len(answer.because)
        assert len(answer.ids) <= listing.k
        assert all(may_appear(collection, rows[one], listing.filters) for one in answer.ids)
        own = plays_of(collection, listener)
        if listing.exclude_played:
            assert not own & set(answer.ids)
        artists = [collection.songs.artist_ids[rows[one]] for one in answer.ids]
        if listing.max_per_artist:
            assert all(artists.count(one) <= listing.max_per_artist for one in artists if one)
        somewhere = Filters(region=listing.filters.region)
        for song_id, reasons in zip(answer.ids, answer.because, strict=True):
            assert len(reasons) <= listing.n_because
            assert {reason for reason, _ in reasons} <= own - {song_id}
            assert all(may_appear(collection, rows[reason], somewhere) for reason, _ in reasons)


@given(st.integers(0, 20), listings, st.sampled_from(["user0", "user5"]))
@settings(max_examples=150, deadline=None)
def test_a_list_by_score_is_a_loop_over_the_definition(seed, listing, user_id):
    listing = Listing(**{**vars(listing), "diversity": 0.0})
    collection = collection_of(seed=seed)
    songs = collection.songs
    taste = collection.listeners.factors[collection.listeners.ids.tolist().index(user_id)]
    own = plays_of(collection, Listener(user_id)) if listing.exclude_played else set()
    ranked: list[str] = []
    artists: list[str] = []
    scores = songs.factors.astype(np.float64) @ taste.astype(np.float64)
    for row in np.argsort(-scores, kind="stable"):
        song_id, artist = songs.ids[row], songs.artist_ids[row]
        is_capped = (
            listing.max_per_artist and artist and artists.count(artist) >= listing.max_per_artist
        )
        if song_id not in own and may_appear(collection, row, listing.filters) and not is_capped:
            ranked.append(song_id)
            artists.append(artist)
    (answer,) = Recommender(collection).recommend([(Listener(user_id), listing)], NOW)
    assert answer.ids == ranked[listing.offset : listing.offset + listing.k]
    rows = [songs.ids.tolist().index(one) for one in answer.ids]
    np.testing.assert_allclose(answer.scores, scores[rows], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("diversity", [0.0, 0.4])
@pytest.mark.parametrize("max_per_artist", [None, 2])
def test_pages_are_the_parts_of_one_list(diversity, max_per_artist):
    recommender = Recommender(collection_of(200, seed=3))

    def page(k: int, offset: int) -> list[str]:
        listing = Listing(k, offset, diversity=diversity, max_per_artist=max_per_artist)
        return recommender.recommend([(Listener("user1"), listing)], NOW)[0].ids

    whole = page(60, 0)
    assert page(20, 0) + page(25, 20) + page(15, 45) == whole
    assert len(whole) == (60 if max_per_artist is None else len(whole))
    assert page(10, 500) == []


def test_diversity_makes_a_list_more_varied_and_keeps_its_first_song():
    collection = collection_of(300, seed=1)
    recommender = Recommender(collection)

    def alike(diversity: float) -> float:
        answer = recommender.recommend(
            [(Listener("user2"), Listing(20, diversity=diversity))], NOW
        )[0]
        rows = recommender.index.rows_of(answer.ids)
        directions = recommender.index.directions(collection.songs.factors[rows])
        assert answer.ids[0] == by_score[0]
        return float((directions @ directions.T).mean())

    by_score = recommender.recommend([(Listener("user2"), Listing(20))], NOW)[0].ids
    assert alike(0.0) > alike(0.3) > alike(0.9)


def test_reasons_are_the_nearest_played_songs_by_usage_pattern():
    collection = collection_of(seed=5)
    users, songs = collection.listeners.factors.astype(np.float64), collection.songs
    (answer,) = Recommender(collection).recommend(
        [(Listener("user4"), Listing(10, n_because=2))], NOW
    )
    patterns = users @ songs.factors.T.astype(np.float64)
    patterns /= np.linalg.norm(patterns, axis=0)
    place = {song_id: row for row, song_id in enumerate(songs.ids.tolist())}
    own = sorted(
        one
        for one in plays_of(collection, Listener("user4"))
        if may_appear(collection, place[one], Filters())
    )
    for song_id, reasons in zip(answer.ids, answer.because, strict=True):
        cosines = {one: patterns[:, place[one]] @ patterns[:, place[song_id]] for one in own}
        nearest = sorted((one for one in own if cosines[one] > 0), key=lambda one: -cosines[one])[
            :2
        ]
        assert [reason for reason, _ in reasons] == nearest
        np.testing.assert_allclose(
            [cosine for _, cosine in reasons], [cosines[one] for one in nearest], atol=1e-5
        )


def test_a_listener_nobody_knows_gets_the_mean_listeners_songs_marked_as_such():
    collection = collection_of(seed=2)
    mean = collection.listeners.factors.mean(axis=0)
    (answer,) = Recommender(collection).recommend(
        [(Listener("nobody", ("SO99",)), Listing(50))], NOW
    )
    assert answer.fallback == POPULARITY
    assert answer.unknown == ("nobody", "SO99")
    np.testing.assert_allclose(answer.scores, np.sort(answer.scores)[::-1], rtol=0)
    row = collection.songs.ids.tolist().index(answer.ids[0])
    assert answer.scores[0] == pytest.approx(float(collection.songs.factors[row] @ mean), rel=1e-5)


def test_liked_songs_are_folded_in_towards_the_mean_listener():
    collection = collection_of(seed=4)
    songs = collection.songs
    config = RecommenderConfig(prior_songs=0.0)
    recommender = Recommender(collection, config)
    usage = np.flatnonzero(songs.sources == "usage")
    liked = usage[[1, 4]]
    confidence = sparse.csr_matrix((1, len(usage)), dtype=np.float32).tolil()
    confidence[0, [1, 4]] = 1 + config.confidence.alpha * np.log1p(1 / config.confidence.epsilon)
    expected = fold_in_rows(confidence.tocsr(), songs.factors[usage], config.regularization)[0]
    np.testing.assert_allclose(recommender.taste_of_liked(liked), expected, rtol=1e-4, atol=1e-5)
    mean = collection.listeners.factors.mean(axis=0)
    blended = Recommender(collection, RecommenderConfig(prior_songs=2.0)).taste_of_liked(liked)
    np.testing.assert_allclose(blended, (expected + mean) / 2, rtol=1e-4, atol=1e-5)
    answer = recommender.recommend([(Listener("new", tuple(songs.ids[liked])), Listing(50))], NOW)[
        0
    ]
    assert answer.fallback == LIKED
    assert not set(songs.ids[liked].tolist()) & set(answer.ids)


def test_similar_songs_are_those_of_the_usage_patterns_cosine():
    collection = collection_of(seed=6)
    songs = collection.songs
    patterns = collection.listeners.factors.astype(np.float64) @ songs.factors.T.astype(np.float64)
    patterns /= np.linalg.norm(patterns, axis=0)
    recommender = Recommender(collection)
    (answer,) = recommender.similar(songs.factors[[3]], [Listing(50)], [3], NOW)
    expected = [
        row
        for row in np.argsort(-(patterns.T @ patterns[:, 3]), kind="stable")
        if row != 3 and may_appear(collection, row, Filters())
    ]
    assert answer.ids == songs.ids[expected].tolist()
    np.testing.assert_allclose(answer.scores, (patterns.T @ patterns[:, 3])[expected], atol=1e-5)
    assert answer.because == []  # songs like a song have no reasons


def test_listeners_for_a_song_are_those_who_score_it_highest_and_have_not_played_it():
    collection = collection_of(seed=7)
    recommender = Recommender(collection)
    song = int(np.argmax((collection.listeners.played > 0).sum(axis=0)))
    factors = collection.songs.factors[[song]]
    scores = collection.listeners.factors.astype(np.float64) @ factors[0].astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    played = set(collection.listeners.played.tocsc()[:, [song]].indices.tolist())
    assert played
    answers = recommender.listeners_for(
        np.repeat(factors, 3, axis=0),
        [Listing(50), Listing(50, exclude_played=False), Listing(2, 1)],
        [song, song, -1],
    )
    ids = collection.listeners.ids
    assert answers[0].ids == [ids[row] for row in order if row not in played]
    assert answers[1].ids == ids[order].tolist()
    assert answers[2].ids == ids[order[1:3]].tolist()


def test_songs_that_are_added_appear_and_older_answers_go_on():
    collection = collection_of(50, seed=8)
    older = Recommender(collection)
    before = older.recommend([(Listener("user1"), Listing(60))], NOW)[0]
    added = replace(songs_of(40, seed=9, prefix="NEW"), sources=np.full(40, "audio"))
    newer = older
    for start in range(0, 40, 5):
        part = type(added)(
            **{name: values[start : start + 5] for name, values in vars(added).items()}
        )
        newer = newer.with_songs(part)
    together = type(added)(
        **{
            name: np.concatenate([values, vars(added)[name]])
            for name, values in vars(collection.songs).items()
        }
    )
    listeners_ = collection.listeners
    grown = type(listeners_)(
        listeners_.ids,
        listeners_.factors,
        sparse.csr_array(
            sparse.hstack([listeners_.played, sparse.csr_array((12, 40), dtype=np.int32)])
        ),
    )
    whole = Recommender(type(collection)(collection.version, together, grown))
    for wish in (
        (Listener("user1"), Listing(80, max_per_artist=2)),
        (Listener(None, ("NEW3",)), Listing()),
    ):
        assert newer.recommend([wish], NOW)[0].ids == whole.recommend([wish], NOW)[0].ids
    assert older.recommend([(Listener("user1"), Listing(60))], NOW)[0] == before
    assert older.index.rows_of(["NEW3"]) == [-1]
    with pytest.raises(ShapeMismatch, match="not here yet"):
        newer.with_songs(part)
    with pytest.raises(ShapeMismatch, match="new songs of 4 factors, got 5"):
        newer.with_songs(songs_of(2, 5, prefix="X"))
    with pytest.raises(FactorsRejected, match="newest"):
        older.with_songs(songs_of(1, prefix="X"))


def test_a_song_that_is_withdrawn_is_gone_and_one_that_is_restored_is_back():
    collection = collection_of(seed=1)
    recommender = Recommender(collection)
    (best, *_) = recommender.recommend([(Listener("user1"), Listing())], NOW)[0].ids
    row = recommender.index.rows_of([best])

    def changed(*, withdrawn: bool, until: str, blocked: str) -> list[str]:
        index = recommender.index.with_availability(
            row,
            is_withdrawn=np.array([withdrawn]),
            available_from=np.array([until], "datetime64[s]"),
            blocked_regions=[blocked],
        )
        wish = (Listener("user1"), Listing(filters=Filters(region="FR")))
        return recommender.with_index(index).recommend([wish], NOW)[0].ids

    assert best not in changed(withdrawn=True, until="NaT", blocked="")
    assert best not in changed(withdrawn=False, until="2026-01-02", blocked="")
    assert best not in changed(withdrawn=False, until="NaT", blocked="FR")
    assert best in changed(withdrawn=False, until="2025-12-31", blocked="DE")


def test_an_empty_catalogue_and_no_listeners_are_answers():
    nothing = Recommender(collection_of(0, 0))
    assert nothing.recommend([(Listener("user1", ("SO1",)), Listing())], NOW)[0].ids == []
    assert nothing.listeners_for(np.ones((1, 4), np.float32), [Listing()], [-1])[0].ids == []
