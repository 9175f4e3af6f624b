"""What the server has to say about itself: whether it answers, and what is amiss meanwhile."""

from collections.abc import Sequence
from typing import Any

from serving.champion import ChampionFollower
from serving.engine import EAGER, engine_name
from serving.memory import Memory
from serving.model import ServedModel

#: What may run a network.
ENGINE_NAMES = ("onnx", EAGER)

#: What may be amiss, and what that means.
REASONS = {
    "no_champion": "nothing has been promoted yet, or it can't be loaded: no clip is heard",
    "champion_refused": "the registry's champion is broken or fails its rehearsal: the one before "
    "it answers",
    "nothing_published": "the store has nothing published yet: no list is answered",
    "store_away": "the store hasn't been seen for long: answers are of what was read last, and "
    "marked as stale",
    "swapping": "the champion and what the store has published are of two versions: clips are "
    "refused until both are of one",
}


def status_of(
    models: Sequence[ServedModel], follower: ChampionFollower | None, memory: Memory | None
) -> dict[str, Any]:
    """Return the answer of ``GET /v1/status``.

    A server that is degraded is still ready as long as it answers: taken out of the balance, it
    would answer nobody, and the others have the same store.
    """
    champion = follower.current if follower is not None else None
    known = memory.current if memory is not None else None
    champion_version = None if champion is None else champion.bundle.fingerprint
    is_stale = memory is not None and memory.is_stale
    amiss = {
        "no_champion": follower is not None and champion is None,
        "champion_refused": follower is not None and champion is not None and follower.is_behind,
        "nothing_published": memory is not None and known is None,
        "store_away": is_stale,
        "swapping": champion_version is not None
        and known is not None
        and champion_version != known.version,
    }
    return {
        "ready": all(model.can_answer for model in models),
        "degraded": [reason for reason, is_so in amiss.items() if is_so],
        "bundle": champion_version if known is None else known.version,
        "engine": None if champion is None else engine_name(champion.bundle),
        "n_songs": None if known is None else len(known.recommender.index),
        "n_listeners": None if known is None else len(known.recommender.listeners),
        "store_unseen_seconds": None if memory is None else round(memory.unseen_seconds, 3),
        "stale": is_stale,
        "models": [model.name for model in models],
    }
