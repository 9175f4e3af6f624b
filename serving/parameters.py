"""The parameters of requests to the ranking models: one table, read from and shown to clients."""

from dataclasses import dataclass
from functools import lru_cache

from feature_repo.regions import REGIONS, USER_ASSIGNED
from needledrop.ranking.recommender import N_DIVERSE
from serving.limits import ServingLimits

MOST_YEAR = 9999
REGION_CODES = ("", *sorted(REGIONS | USER_ASSIGNED))


@dataclass(frozen=True)
class Parameter:
    """What a parameter may be.

    Attributes:
        kind: "count" (a whole number), "flag", "share" (a number from 0 to 1) or "region".
        about: what it does, in a sentence.
        default: where it isn't given.
        least: of a count.
        most: of a count.
    """

    kind: str
    about: str
    default: int | float | bool | str | None
    least: int = 0
    most: int = 0


@lru_cache(maxsize=8)
def parameters_of(limits: ServingLimits) -> dict[str, Parameter]:
    """Return every parameter by its name; which of them a model takes, its form says."""
    return {
        "k": Parameter(
            "count", "Songs or listeners wanted.", min(25, limits.max_k), 1, limits.max_k
        ),
        "offset": Parameter(
            "count", "How many come before them, for the next page.", 0, 0, limits.max_offset
        ),
        "newer_than": Parameter(
            "count",
            "Only songs of a later year; a song of unknown year is left out.",
            None,
            0,
            MOST_YEAR,
        ),
        "only_unplayed": Parameter("flag", "Only songs that nobody has played.", False),
        "region": Parameter(
            "region",
            "Where the listener is (ISO 3166-1, two capital letters): songs blocked there are left "
            "out.",
            "",
        ),
        "max_per_artist": Parameter(
            "count",
            "Songs of one artist in the whole list; null for any number.",
            None,
            1,
            limits.max_k,
        ),
        "diversity": Parameter(
            "share",
            f"From 0 (by score alone) to 1; above 0, the list ends after {N_DIVERSE} songs. "
            "KServe's gRPC client, which sends no fractions, may send it as text.",
            0.0,
        ),
        "exclude_played": Parameter(
            "flag",
            "Leave out what the listener has played or liked, or who has played the song.",
            True,
        ),
        "n_because": Parameter(
            "count",
            "For each song, how many of the listener's own are named as the reason.",
            1,
            0,
            10,
        ),
        "n_nearest": Parameter(
            "count",
            "Nearest songs wanted with the factors.",
            min(10, limits.max_n_nearest),
            0,
            limits.max_n_nearest,
        ),
    }
