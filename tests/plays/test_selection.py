"""The most played songs and some of their listeners."""

import numpy as np
import pytest
from scipy import sparse

from needledrop.errors import ConfigRejected, InputError
from needledrop.plays.selection import SelectionConfig, selected_plays
from needledrop.plays.triplets import Plays

# Songs a, b, c, d with 1, 5, 5 and 9 plays; nobody but u3 played a.
COUNTS = np.array([[0, 5, 0, 3], [0, 0, 2, 3], [0, 0, 3, 3], [1, 0, 0, 0]])
PLAYS = Plays(
    sparse.csr_matrix(COUNTS), np.array(["u0", "u1", "u2", "u3"]), np.array(["a", "b", "c", "d"])
)
ALL = {"a", "b", "c", "d"}


def test_the_most_played_songs_are_taken_with_ties_by_id():
    some = selected_plays(PLAYS, ALL, SelectionConfig(n_songs=2))
    assert some.song_ids.tolist() == ["b", "d"]
    assert some.user_ids.tolist() == ["u0", "u1", "u2"]  # u3 played neither
    assert some.user_song.toarray().tolist() == [[5, 3], [0, 3], [0, 3]]


def test_songs_without_a_clip_are_not_chosen():
    some = selected_plays(PLAYS, {"a", "c"}, SelectionConfig(n_songs=2))
    assert some.song_ids.tolist() == ["a", "c"]
    with pytest.raises(InputError, match="with plays and a clip"):
        selected_plays(PLAYS, {"x"}, SelectionConfig(n_songs=2))


def test_listeners_are_drawn_by_a_seed_and_keep_their_plays():
    drawn = {
        seed: selected_plays(PLAYS, ALL, SelectionConfig(n_users=2, seed=seed)) for seed in range(8)
    }
    for seed, some in drawn.items():
        assert len(some.user_ids) == 2
        rows = np.searchsorted(PLAYS.user_ids, some.user_ids)
        columns = np.searchsorted(PLAYS.song_ids, some.song_ids)
        assert some.user_song.toarray().tolist() == COUNTS[rows][:, columns].tolist()
        assert (some.user_song.toarray().sum(axis=0) > 0).all()
        again = selected_plays(PLAYS, ALL, SelectionConfig(n_users=2, seed=seed))
        assert again.user_ids.tolist() == some.user_ids.tolist()
    assert len({tuple(some.user_ids) for some in drawn.values()}) > 1


def test_nothing_asked_for_is_everything():
    some = selected_plays(PLAYS, set(), SelectionConfig())
    assert some.user_song.toarray().tolist() == COUNTS.tolist()
    with pytest.raises(ConfigRejected, match=r"selection\.n_songs"):
        SelectionConfig(n_songs=-1)
