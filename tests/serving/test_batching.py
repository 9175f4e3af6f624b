"""Clips that wait together are encoded together, and none notices the others."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from needledrop.audio.frontend import ClipFeatures
from needledrop.encoders.bundle import Bundle
from needledrop.errors import NeedledropError, ShapeMismatch
from serving import metrics
from serving.batching import NetworkBatcher
from serving.limits import ServingLimits
from serving.model import UnreadBody
from serving.predictor import FactorPredictor
from serving.refusals import Refused
from tests.serving.world import waveform


@pytest.fixture(scope="module")
def clips(bundle: Bundle) -> list[ClipFeatures]:
    """Ten clips of 2 to 5 windows."""
    return [bundle.features(waveform(4 + 0.5 * seed, seed)) for seed in range(10)]


def encoded(batcher_of, clips, cancel: int = -1) -> tuple[list, list[int]]:
    """Let clips come together while the only thread is busy; return outcomes and batch sizes."""
    sizes: list[int] = []

    async def ask() -> list:
        batcher = batcher_of(executor)
        free = threading.Event()
        executor.submit(free.wait)
        asking = [asyncio.ensure_future(batcher.factors(clip)) for clip in clips]
        await asyncio.sleep(0)  # each has put its clip in the queue
        if cancel >= 0:
            asking[cancel].cancel()
            await asyncio.sleep(0)
        free.set()
        return await asyncio.gather(*asking, return_exceptions=True)

    with ThreadPoolExecutor(1) as executor:
        before = [bucket.get() for bucket in metrics.BATCH_CLIPS._buckets]
        outcomes = asyncio.run(ask())
        after = [bucket.get() for bucket in metrics.BATCH_CLIPS._buckets]
    bounds = metrics.BATCH_CLIPS._upper_bounds
    for bound, one, other in zip(bounds, before, after, strict=True):
        sizes += [bound] * int(other - one)
    return outcomes, sizes


def test_what_waits_shares_one_pass_and_comes_out_as_if_alone(
    bundle: Bundle, clips: list[ClipFeatures]
) -> None:
    together, sizes = encoded(lambda executor: NetworkBatcher(bundle, executor, 100), clips)
    assert sizes == [16]  # the bucket of ten
    for factors, clip in zip(together, clips, strict=True):
        np.testing.assert_allclose(factors, bundle.factors(clip), rtol=1e-5, atol=1e-6)


def test_a_batch_takes_no_more_than_is_worth_taking(
    bundle: Bundle, clips: list[ClipFeatures]
) -> None:
    """Clips of 2, 3 and 3 windows: five go together, and the last one alone."""
    assert [bundle.n_windows(clip) for clip in clips[:3]] == [2, 2, 3]
    _, sizes = encoded(lambda executor: NetworkBatcher(bundle, executor, 6), clips[:3])
    assert sizes == [1, 2]
    _, sizes = encoded(lambda executor: NetworkBatcher(bundle, executor, 0), clips[:3])
    assert sizes == [1, 1, 1]


def test_one_that_fails_fails_alone(clips: list[ClipFeatures]) -> None:
    broken = clips[1]

    def factors(some: list[ClipFeatures]) -> np.ndarray:
        if any(clip is broken for clip in some):
            raise NeedledropError("this one")
        return np.ones((len(some), 3), np.float32)

    bundle = SimpleNamespace(n_windows=lambda clip: 1, encoder=SimpleNamespace(factors=factors))
    outcomes, _ = encoded(lambda executor: NetworkBatcher(bundle, executor, 9), clips[:3])
    assert [isinstance(one, NeedledropError) for one in outcomes] == [False, True, False]


def test_a_request_that_was_given_up_costs_nothing(
    bundle: Bundle, clips: list[ClipFeatures]
) -> None:
    outcomes, sizes = encoded(
        lambda executor: NetworkBatcher(bundle, executor, 100), clips[:3], cancel=1
    )
    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert sizes == [2]
    assert isinstance(outcomes[2], np.ndarray)


def test_another_front_ends_clip_is_refused_before_it_waits(bundle: Bundle) -> None:
    features = ClipFeatures(np.zeros((200, 64), np.float16), np.empty((0, 0), np.float16))
    [outcome], sizes = encoded(lambda executor: NetworkBatcher(bundle, executor, 9), [features])
    assert isinstance(outcome, ShapeMismatch)
    assert sizes == []


def test_a_request_that_waits_too_long_is_told_so(bundle: Bundle, wav: bytes) -> None:
    """Nothing is begun for it any more: the thread that was busy finds an empty queue."""
    follower = SimpleNamespace(current=SimpleNamespace(bundle=bundle))
    limits = replace(ServingLimits(), max_request_seconds=0.1)

    async def ask() -> None:
        free = threading.Event()
        executor.submit(free.wait)
        model = FactorPredictor(follower, limits, executor)
        try:
            await model(UnreadBody("v1", b"{}"))
        finally:
            free.set()

    with ThreadPoolExecutor(1) as executor, pytest.raises(Refused, match=r"0\.1 s") as caught:
        asyncio.run(ask())
    assert (caught.value.kind, caught.value.http_status) == ("too_slow", 504)
