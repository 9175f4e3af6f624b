"""Scores on a torch device: the same inner products, where a GPU multiplies and counts.

Shape letters: U users, I songs, k factors, B users of one block.

The songs' factors lie on the device; the users' come block by block, so that the device's memory
is flat in U: 4 (I k + B (I + k)) bytes, and what counting takes (needledrop/ranking/counting.py).
"""

import torch

from needledrop.ranking.scores import FactorScores, Floats, Indices, distinct_rows


class DeviceScores:
    """The inner products of user factors and song factors, computed on a device.

    As in :class:`FactorScores`, songs with identical factors get identical scores, bit for bit.

    Args:
        scores: whose factors are taken.
        device: such as ``cuda``; ``cpu`` gives the same through torch.
    """

    def __init__(self, scores: FactorScores, device: torch.device) -> None:
        self._users = scores.user_factors
        distinct, place = distinct_rows(scores.song_factors)
        self._distinct = torch.from_numpy(distinct).to(device).T
        # None where all songs differ: their product is then the scores themselves.
        self._place = None if len(distinct) == len(place) else torch.from_numpy(place).to(device)
        self._scores = scores
        self._device = device

    @property
    def n_users(self) -> int:
        """U."""
        return self._scores.n_users

    @property
    def n_songs(self) -> int:
        """I."""
        return self._scores.n_songs

    def rows_on_device(self, users: Indices) -> torch.Tensor:
        """Return (B, I) float32 on the device for the users (B,)."""
        scores = torch.from_numpy(self._users[users]).to(self._device) @ self._distinct
        return scores if self._place is None else scores[:, self._place]

    def rows(self, users: Indices) -> Floats:
        """Return (B, I) float32 for the users (B,)."""
        rows: Floats = self.rows_on_device(users).cpu().numpy()
        return rows

    def of_songs(self, columns: Indices) -> "DeviceScores":
        """Return the scores of these songs, in this order."""
        return DeviceScores(self._scores.of_songs(columns), self._device)
