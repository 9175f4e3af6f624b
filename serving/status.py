"""What the server has to say about itself: whether it answers, and what is amiss meanwhile."""

from collections.abc import Sequence
from typing import Any

from serving.champion import ChampionFollower
from serving.encoding import RemotePredictor
from serving.engine import EAGER, engine_name
from serving.memory import Memory
from serving.model import ServedModel
from serving.schema import MODEL_NAME
from serving.server_config import ServerConfig

#: What may run a network.
ENGINE_NAMES = ("onnx", EAGER)

#: What may be amiss, and what that means.
REASONS = {
    "no_champion": "nothing has been promoted yet, or it can't be loaded: no clip is heard",
    "champion_refused": "the registry's champion is broken or fails its rehearsal: the one before "
    "it answers",
    "predictor_away": "the predictor at --predictor doesn't answer, or has no champion: no clip is "
    "heard; listeners and songs by id are answered",
    "nothing_published": "there is no store yet, or it has nothing published: no list is answered",
    "store_away": "the store hasn't been seen for long: answers are of what was read last, and "
    "marked as stale",
    "swapping": "the champion and what the store has published are of two versions: clips are "
    "heard by the network before, or refused where that is gone, until both are of one",
}


def status_of(
    models: Sequence[ServedModel],
    follower: ChampionFollower | None,
    memory: Memory | None,
    predictor: RemotePredictor | None = None,
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
        "predictor_away": predictor is not None and predictor.is_away,
        "nothing_published": memory is not None and known is None,
        "store_away": is_stale,
        "swapping": (follower is not None and follower.is_waiting)
        or (
            champion_version is not None and known is not None and champion_version != known.version
        ),
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


def ready_line(
    config: ServerConfig, follower: ChampionFollower | None, memory: Memory | None
) -> str:
    """Return the one line that says where the server listens and how to ask it."""
    url = f"http://localhost:{config.http_port}"
    grpc = "" if config.grpc_port is None else f" and gRPC on {config.grpc_port}"
    states = []
    if follower is not None:
        champion = follower.current
        states.append(
            f"bundle {champion.bundle.fingerprint[:16]}"
            if champion
            else f"no champion in {config.registry} yet"
        )
    if memory is not None:
        known = memory.current
        nothing = (
            f"no store at {config.store} yet" if memory.awaits_store else "nothing published yet"
        )
        states.append(
            f"{len(known.recommender.index)} songs, {len(known.recommender.listeners)} listeners"
            if known
            else nothing
        )
    names = (
        MODEL_NAME if memory is None else f"{MODEL_NAME}, recommend, similar, listeners, new-songs"
    )
    ask = (
        """(printf '{"instances":[{"audio":"'; base64 -w0 CLIP; printf '"}]}') | """
        f"curl -s --data-binary @- {url}/v1/models/{MODEL_NAME}:predict"
        if memory is None
        else f"curl -s {url}/v1/models/recommend:predict -d "
        """'{"instances":[{"user_id":"ID"}]}'"""
    )
    return (
        f"needledrop serves {names} ({', '.join(states)}) on {url}{grpc}; "
        f"open it in a browser, or try: {ask}"
    )
