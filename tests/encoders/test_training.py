"""The seeded loop: it learns, repeats itself, resumes to the same weights, and stops early."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss

from needledrop.encoders.cnn import Cnn, CnnConfig, CnnEncoder, CnnEnsemble
from needledrop.encoders.cnn2d import Cnn2d
from needledrop.encoders.device import seeded_initialisation, torch_device
from needledrop.encoders.objectives import mean_squared_error
from needledrop.encoders.targets import TargetScaler
from needledrop.encoders.training import train
from needledrop.encoders.training_config import TrainingConfig
from needledrop.encoders.training_set import TrainingSet
from needledrop.errors import ConfigRejected, DiskFull, InputError, ShapeMismatch
from tests.full_disk import full_disk

SIZE = CnnConfig(
    n_filters=(8, 8),
    pooling_frames=(4, 2),
    n_hidden=(16,),
    dropout=0.1,
    n_networks=1,
    n_networks_2d=0,
)
QUICK = TrainingConfig(
    n_epochs=4, windows_per_song=2, batch_size=8, learning_rate=3e-3, device="cpu", mixup=0.2
)


def training_set(heard, n_songs=12) -> TrainingSet:
    store, factors = heard
    return TrainingSet(store, store.song_ids[:n_songs], factors[:n_songs], 130)


def network(seed=0) -> Cnn:
    with seeded_initialisation(seed):
        return Cnn(SIZE, n_mels=128, n_factors=4)


def flat(net: Cnn) -> torch.Tensor:
    return torch.cat([tensor.flatten().float() for tensor in net.state_dict().values()])


def rising():
    """A validation score that rises with every call."""
    calls = iter(range(1000))
    return lambda _network: float(next(calls))


@pytest.mark.long
def test_it_learns_what_can_be_heard(heard):
    store, factors = heard
    net = network()
    config = TrainingConfig(
        n_epochs=60,
        windows_per_song=4,
        batch_size=16,
        learning_rate=5e-3,
        device="cpu",
        masked_bands=0,
        patience_epochs=60,
    )
    history = train(net, training_set(heard), rising(), config)
    assert history[-1].loss < 0.4 * history[0].loss
    encoder = CnnEncoder(net, SIZE, TargetScaler(np.zeros(4, np.float32), 1.0), 130)
    unheard = encoder.factors([store[song] for song in store.song_ids[12:].tolist()])
    assert np.corrcoef(unheard.ravel(), factors[12:].ravel())[0, 1] > 0.6


def test_a_network_of_patches_learns_and_hears_a_sound_wherever_it_stands(heard):
    """A tone that moves by a few bands looks alike to its first layers."""
    with seeded_initialisation(0):
        net = Cnn2d((8, 8), (16,), 0.1, n_mels=128, n_factors=4)
    config = replace(QUICK, n_epochs=40, patience_epochs=40, mixup=0.0, masked_bands=0)
    history = train(net, training_set(heard), rising(), config)
    assert history[-1].loss < 0.6 * history[0].loss
    assert net(torch.zeros(2, 130, 128)).shape == (2, 4)
    with pytest.raises(ShapeMismatch, match="another front end"):
        net(torch.zeros(2, 130, 64))
    silence, low, high = torch.zeros(3, 1, 130, 128).unbind()
    low[..., 40:42], high[..., 44:46] = 5.0, 5.0  # four bands: one step of two poolings
    with torch.no_grad():
        maps = [net.convolutions[:5](one.unsqueeze(1)) for one in (silence, low, high)]
    torch.testing.assert_close(maps[1][..., 10:20], maps[2][..., 11:21])
    assert not torch.equal(maps[0], maps[1])


def test_the_same_seed_gives_the_same_weights_and_another_does_not(heard):
    nets = [network() for _ in range(3)]
    configs = [QUICK, QUICK, TrainingConfig(**{**QUICK.__dict__, "seed": 1})]
    for net, config in zip(nets, configs, strict=True):
        train(net, training_set(heard), rising(), config)
    assert torch.equal(flat(nets[0]), flat(nets[1]))
    assert not torch.equal(flat(nets[0]), flat(nets[2]))


class _Stopped(Exception):
    pass


def test_a_run_that_was_stopped_ends_with_the_same_weights(heard, tmp_path):
    whole, resumed = network(), network()
    history = train(whole, training_set(heard), rising(), QUICK)

    def stop_after_two(epoch):
        if epoch.number == 1:
            raise _Stopped

    arguments = {"checkpoint": tmp_path / "state.pt", "fingerprint": "this run"}
    with pytest.raises(_Stopped):
        train(resumed, training_set(heard), rising(), QUICK, on_epoch=stop_after_two, **arguments)
    (tmp_path / ".state.pt.part-1-0").mkdir()  # of a process that was killed while it wrote
    fresh = network(seed=9)  # what the process started with must not matter
    scores = iter([2.0, 3.0])
    seen = []
    continued = train(
        fresh,
        training_set(heard),
        lambda _n: next(scores),
        QUICK,
        on_epoch=seen.append,
        **arguments,
    )
    assert torch.equal(flat(fresh), flat(whole))
    assert [epoch.loss for epoch in continued] == [epoch.loss for epoch in history]
    assert [epoch.number for epoch in seen] == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_checkpoint_that_finds_no_space_leaves_the_one_before_it(heard, tmp_path):
    whole, resumed = network(), network()
    train(whole, training_set(heard), rising(), QUICK)
    path = tmp_path / "state.pt"
    arguments = {"checkpoint": path, "fingerprint": "this run"}
    with contextlib.ExitStack() as disk, pytest.raises(DiskFull, match="run the same again"):
        train(
            resumed,
            training_set(heard),
            rising(),
            QUICK,
            on_epoch=lambda _: disk.enter_context(full_disk(10_000)),
            **arguments,
        )
    assert [one.name for one in tmp_path.iterdir()] == ["state.pt"]
    scores = iter([1.0, 2.0, 3.0])
    train(resumed, training_set(heard), lambda _: next(scores), QUICK, **arguments)
    assert torch.equal(flat(resumed), flat(whole))


@pytest.mark.parametrize("content", ["foreign", "garbage"])
def test_a_checkpoint_of_something_else_is_not_taken_up(heard, tmp_path, content):
    path = tmp_path / "state.pt"
    if content == "foreign":
        train(network(5), training_set(heard), rising(), QUICK, checkpoint=path, fingerprint="old")
    else:
        path.write_bytes(b"no checkpoint at all")
    net, reference = network(), network()
    train(net, training_set(heard), rising(), QUICK, checkpoint=path, fingerprint="new")
    train(reference, training_set(heard), rising(), QUICK)
    assert torch.equal(flat(net), flat(reference))


def test_training_stops_when_the_score_no_longer_rises_and_keeps_the_best_weights(heard):
    scores = [0.1, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1]
    given = iter(scores)
    kept = {}
    net = network()

    def score(current):
        value = next(given)
        kept[value] = flat(current).clone()
        return value

    config = TrainingConfig(
        **{**QUICK.__dict__, "n_epochs": 7, "min_epochs": 1, "patience_epochs": 3}
    )
    history = train(net, training_set(heard), score, config)
    assert len(history) == 5
    assert torch.equal(flat(net), kept[0.5])


def test_the_weights_of_early_epochs_are_not_kept(heard):
    scores = iter([0.9, 0.8, 0.1, 0.3, 0.2])
    kept = {}
    net = network()

    def score(current):
        value = next(scores)
        kept[value] = flat(current).clone()
        return value

    config = TrainingConfig(**{**QUICK.__dict__, "n_epochs": 5, "min_epochs": 3})
    history = train(net, training_set(heard), score, config)
    assert len(history) == 5
    assert torch.equal(flat(net), kept[0.3])


def test_the_objective_is_the_squared_distance_of_factors():
    predicted, wanted = torch.randn(7, 5), torch.randn(7, 5)
    expected = np.mean(
        [
            sum((p - w) ** 2 for p, w in zip(a, b, strict=True))
            for a, b in zip(predicted.tolist(), wanted.tolist(), strict=True)
        ]
    )
    assert mean_squared_error(predicted, wanted).item() == pytest.approx(expected, rel=1e-5)
    assert mean_squared_error(predicted, wanted).item() == pytest.approx(
        5 * mse_loss(predicted, wanted).item(), rel=1e-5
    )


def test_the_network_refuses_other_bands_and_short_clips(heard):
    net = network()
    with pytest.raises(ShapeMismatch, match="another front end"):
        net(torch.zeros(1, 130, 64))
    encoder = CnnEncoder(net, SIZE, TargetScaler(np.zeros(4, np.float32), 1.0), 130)
    with pytest.raises(ShapeMismatch, match="at least 130 frames"):
        encoder.windows(np.zeros((129, 128), np.float16))


def test_the_pooling_is_mean_maximum_and_norm_over_time():
    net = Cnn(CnnConfig(n_filters=(8,), pooling_frames=(1,), n_hidden=()), n_mels=16, n_factors=24)
    net.eval()
    with torch.no_grad():
        net.dense[-1].weight.copy_(torch.eye(24))
        net.dense[-1].bias.zero_()
        windows = torch.randn(3, 20, 16)
        maps = net.convolutions(windows.transpose(1, 2).unsqueeze(2)).squeeze(2).numpy()
        pooled = net(windows).numpy()
    np.testing.assert_allclose(pooled[:, :8], maps.mean(axis=2), atol=1e-5)
    np.testing.assert_allclose(pooled[:, 8:16], maps.max(axis=2), atol=1e-5)
    norm = np.sqrt((maps**2).mean(axis=2))
    np.testing.assert_allclose(pooled[:, 16:], norm, atol=1e-3)


def test_windows_reach_from_the_first_frame_to_the_last():
    encoder = CnnEncoder(network(), SIZE, TargetScaler(np.zeros(4, np.float32), 1.0), 130)
    log_mel = np.arange(300, dtype=np.float16)[:, None] * np.ones((1, 128), np.float16)
    windows = encoder.windows(log_mel)
    assert windows.shape == (4, 130, 128)
    assert windows[0, 0, 0] == 0
    assert windows[-1, -1, 0] == 299
    assert len(encoder.windows(log_mel[:130])) == 1


def test_an_ensemble_predicts_the_mean_of_its_members():
    size = replace(SIZE, n_networks=2, n_networks_2d=1, n_filters_2d=(4, 4))
    ensemble = CnnEnsemble(size, n_mels=128, n_factors=4).eval()
    windows = torch.randn(2, 130, 128)
    with torch.no_grad():
        expected = sum(member(windows) for member in ensemble.members) / 3
        torch.testing.assert_close(ensemble(windows), expected)


def test_bands_are_standardised_by_all_training_frames(heard):
    store, _ = heard
    ensemble = CnnEnsemble(SIZE, n_mels=128, n_factors=4)
    clips = [store[song].log_mel for song in store.song_ids.tolist()]
    ensemble.fit_bands(clips)
    frames = np.concatenate(clips).astype(np.float64)
    member = ensemble.members[0]
    np.testing.assert_allclose(member.band_mean.numpy(), frames.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(member.band_deviation.numpy(), frames.std(axis=0), rtol=1e-4)


def test_impossible_settings_are_refused(heard):
    store, _ = heard
    for name, value in [
        ("n_epochs", 0),
        ("learning_rate", -1.0),
        ("mixup", -0.1),
        ("masked_bands", -1),
        ("device", "abacus"),
    ]:
        with pytest.raises(ConfigRejected, match=f"training.{name}"):
            TrainingConfig(**{name: value})
    for settings in (
        {"n_filters": ()},
        {"pooling_frames": (2,)},
        {"dropout": 1.0},
        {"n_networks": 0},
        {"n_networks_2d": -1},
        {"n_filters_2d": ()},
        {"n_hidden": (0,)},
    ):
        with pytest.raises(ConfigRejected, match="cnn"):
            CnnConfig(**settings)
    with pytest.raises(InputError, match="training songs"):
        TrainingSet(store, np.array([], dtype=np.str_), np.zeros((0, 4), np.float32), 130)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigRejected, match=r"training\.device"):
            torch_device("cuda")


def test_the_target_scaler_is_undone_exactly():
    factors = np.random.default_rng(0).normal(2.0, 5.0, (50, 6)).astype(np.float32)
    scaler = TargetScaler.fit(factors)
    targets = scaler.targets(factors)
    np.testing.assert_allclose(targets.mean(axis=0), 0, atol=1e-5)
    assert np.sqrt(np.mean(targets**2)) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(scaler.factors(targets), factors, atol=1e-4)
    assert TargetScaler.fit(np.ones((3, 2), np.float32)).scale == 1.0


def test_without_validation_all_epochs_are_trained_and_the_last_one_is_kept(heard):
    kept, last = network(), network()
    config = replace(QUICK, min_epochs=1, patience_epochs=1)
    history = train(kept, training_set(heard), None, config)
    assert [epoch.validation_score for epoch in history] == [None] * 4
    # A score that rises keeps the last epoch's weights too.
    train(last, training_set(heard), rising(), config)
    assert torch.equal(flat(kept), flat(last))
