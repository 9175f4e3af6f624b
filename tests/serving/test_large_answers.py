"""A large answer is made while others are answered, and is the same as if it were not."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from kserve.model_repository import ModelRepository

from serving import model, ranking_models
from serving.kserve_planes import UnreadDataPlane
from serving.limits import ServingLimits
from serving.memory import Memory
from serving.model import UnreadBody
from serving.ranking_models import RecommendModel, SimilarModel
from serving.scoring import Scorer
from tests.serving.ranking_world import make_world

V1 = b'{"instances": [{"user_id": "user01"}, {"user_id": "user02"}], "parameters": {"k": 20}}'
V2 = b'{"id": "1", "inputs": [{"name": "user_id", "datatype": "BYTES", "shape": [2], "data": ["user01", "user02"]}], "parameters": {"k": 20}}'  # noqa: E501
SIMILAR = b'{"instances": [{"song_id": "SO1000"}], "parameters": {"k": 20}}'


@pytest.fixture
def models(tmp_path):
    make_world(tmp_path, seed=1)

    async def made() -> Memory:
        return Memory(str(tmp_path / "store"))

    memory, scorer = asyncio.run(made()), Scorer()
    memory.refresh()
    with ThreadPoolExecutor(1) as executor:
        yield {
            one.form.model: one(memory, None, scorer, ServingLimits(), executor)
            for one in (RecommendModel, SimilarModel)
        }
    memory.close()
    scorer.close()


def answered(models, name: str, protocol: str, body: bytes) -> object:
    async def ask() -> object:
        registry = ModelRepository()
        registry.update(models[name])
        plane = UnreadDataPlane(registry)
        answer, _ = await plane.infer(name, UnreadBody(protocol, body), {})
        return plane.encode(name, answer, {}, {})

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("name", "protocol", "body", "maker", "n_entries"),
    [
        ("recommend", "v1", V1, "recommended", 80),
        ("recommend", "v2", V2, "recommended_arrays", 80),
        ("similar", "v1", SIMILAR, "listed", 20),
    ],
)
def test_it_is_made_outside_of_the_loop_and_is_the_same(
    models, monkeypatch, name, protocol, body, maker, n_entries
):
    threads = []
    make = getattr(ranking_models, maker)

    def seen(*arguments):
        threads.append(threading.current_thread() is threading.main_thread())
        return make(*arguments)

    def without_ids(answer):
        content, headers = answer
        if isinstance(content, bytes):
            assert headers == {"Content-Type": "application/json"}
            content = json.loads(content)
        for one in content.get("predictions", []):
            one.pop("request_id")
        return content

    monkeypatch.setattr(ranking_models, maker, seen)
    monkeypatch.setattr(model, "MOST_BUILT_HERE", n_entries)
    here = without_ids(answered(models, name, protocol, body))
    assert set(threads) == {True}
    threads.clear()
    monkeypatch.setattr(model, "MOST_BUILT_HERE", n_entries - 1)
    monkeypatch.setattr("serving.kserve_planes.MOST_VALUES", 10)
    assert without_ids(answered(models, name, protocol, body)) == here
    assert set(threads) == {False}
