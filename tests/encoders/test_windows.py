"""Windows on the device: the same bits from its memory as from the maps, and how fast it went."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from needledrop.encoders.augmentation import Augmentation
from needledrop.encoders.training import train
from needledrop.encoders.training_set import TrainingSet
from needledrop.encoders.windows import ResidentWindows, ahead, n_bytes_of, windows_on
from needledrop.errors import ConfigRejected, ShapeMismatch
from tests.encoders.test_training import QUICK, flat, network, rising, training_set

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_windows_from_memory_are_those_of_the_maps(heard, heard_in_eight_bits, dtype):
    store = heard[0] if dtype == "float16" else heard_in_eight_bits
    assert store.frontend.log_mel_dtype == dtype
    song_ids = store.song_ids[[3, 0, 12, 5]]
    rows, starts = np.array([2, 0, 3, 2, 1]), np.array([30, 0, 7, 1, 11])
    mapped = windows_on(CPU, store, song_ids, 130)(rows, starts)
    resident = ResidentWindows(CPU, store, song_ids, 130)
    assert (mapped.dtype, mapped.shape) == (torch.float32, (5, 130, 128))
    kept = mapped.clone()
    assert torch.equal(resident(rows, starts), mapped)
    expected = store[str(song_ids[2])].log_mel[30:160].astype(np.float32)
    np.testing.assert_array_equal(mapped[0].numpy(), expected)
    again = windows_on(CPU, store, song_ids, 130)
    for n in (5, 2, 4):  # batches of several sizes, in the same room
        assert torch.equal(again(rows[:n], starts[:n]), kept[:n])
    assert n_bytes_of(store, song_ids) == 4 * 160 * 128 * (2 if dtype == "float16" else 1)
    for bad in (31, -1):
        for windows in (again, resident):
            with pytest.raises(ShapeMismatch, match=f"song {song_ids[1]}, got one that starts at"):
                windows(np.array([0, 1]), np.array([0, bad]))


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_masked_bands_take_their_mean_and_the_others_stay_to_the_bit(
    heard, heard_in_eight_bits, dtype
):
    store = heard[0] if dtype == "float16" else heard_in_eight_bits
    generator = np.random.default_rng(0)
    rows, starts = generator.integers(0, 12, 64), generator.integers(0, 31, 64)
    masked = Augmentation.draw(generator, 64, 128, masked_bands=24, mixup=0.0).masked
    assert masked.any()
    windows = windows_on(CPU, store, store.song_ids, 130)
    plain = windows(rows, starts).numpy().copy()
    mean = plain.mean(axis=1, keepdims=True, dtype=np.float64)
    found = windows(rows, starts, masked).numpy().copy()
    is_masked = np.broadcast_to(masked[:, np.newaxis], plain.shape)
    np.testing.assert_array_equal(found[~is_masked], plain[~is_masked])
    np.testing.assert_allclose(found, np.where(is_masked, mean, plain), rtol=1e-5)
    resident = ResidentWindows(CPU, store, store.song_ids, 130)
    np.testing.assert_array_equal(resident(rows, starts, masked).numpy(), found)


def test_batches_are_prepared_ahead_in_their_order_and_fail_where_they_fail():
    made = []

    def batches():
        for number in range(4):
            made.append((number, threading.current_thread().name))
            yield number
        raise ShapeMismatch("of the fifth")

    taken = []
    with pytest.raises(ShapeMismatch, match="of the fifth"):
        taken.extend(ahead(batches()))
    assert taken == [0, 1, 2, 3]
    assert [number for number, _ in made] == taken
    assert all(name.startswith("windows") for _, name in made)
    assert list(ahead(iter([]))) == []


def test_training_in_eight_bits_repeats_itself_and_comes_near(heard_aloud, heard_in_eight_bits):
    _, factors = heard_aloud
    small = TrainingSet(heard_in_eight_bits, heard_in_eight_bits.song_ids[:12], factors[:12], 130)
    nets = [network() for _ in range(3)]
    histories = [
        train(net, songs, rising(), QUICK)
        for net, songs in zip(nets, (small, small, training_set(heard_aloud)), strict=True)
    ]
    assert torch.equal(flat(nets[0]), flat(nets[1]))
    losses = [[epoch.loss for epoch in history] for history in histories]
    np.testing.assert_allclose(losses[0], losses[2], rtol=0.05)


def test_training_in_half_precision_repeats_itself_and_comes_near(heard):
    nets = [network() for _ in range(3)]
    half = replace(QUICK, precision="bfloat16")
    histories = [
        train(net, training_set(heard), rising(), config)
        for net, config in zip(nets, (half, half, QUICK), strict=True)
    ]
    assert torch.equal(flat(nets[0]), flat(nets[1]))
    assert not torch.equal(flat(nets[0]), flat(nets[2]))
    losses = [[epoch.loss for epoch in history] for history in histories]
    np.testing.assert_allclose(losses[0], losses[2], rtol=0.05)
    assert all(tensor.dtype != torch.bfloat16 for tensor in nets[0].state_dict().values())
    with pytest.raises(ConfigRejected, match=r"training\.precision: expected auto, float32"):
        replace(QUICK, precision="float8")


def test_the_pace_is_told_and_changes_nothing(heard):
    nets, paces = [network(), network()], []
    train(nets[0], training_set(heard), rising(), QUICK)
    train(nets[1], training_set(heard), rising(), QUICK, on_pace=paces.append)
    assert torch.equal(flat(nets[0]), flat(nets[1]))
    assert [pace.n_windows for pace in paces] == [24] * QUICK.n_epochs
    assert all(0 < pace.seconds_waiting < pace.seconds for pace in paces)
