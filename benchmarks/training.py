"""Training at speed: windows a second of the real loop, and how much of the machine they use.

    PYTHONPATH=. python benchmarks/training.py [--features features.json] [--device cpu]
                                  [--threads 2] [--variants float32 bfloat16 …] [--epochs 2]

For each kind of network, at its default size: windows per second, achieved FLOP/s (forward and
backward, counted by torch.utils.flop_counter) as a share of the machine's ceiling, and the share of
the time in which the network waited for its windows. The ceiling is the fastest square matrix
product of the same precision and threads, in the same run. Without ``--features`` the songs are
noise of the size of 30 s clips. Epochs of the variants take turns; the best epoch of each counts,
since other work can only make one slower. Where a processor has no bfloat16 of its own, which then
takes a hundred times as long, its variants are left out unless they are asked for. On a GPU the
loop is waited for after every batch, so the share that waits is an upper bound. The default
ensemble has as many networks of one kind as of the other, each of which sees as many windows: its
share is that of both together.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from machine import machine
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.frontend import N_MFCCS, ClipFeatures, FrontendConfig
from needledrop.audio.shards import save_log_mel
from needledrop.encoders.cnn import CnnConfig, CnnEnsemble
from needledrop.encoders.device import seeded_initialisation, torch_device
from needledrop.encoders.objectives import mean_squared_error
from needledrop.encoders.training import train
from needledrop.encoders.training_config import TrainingConfig
from needledrop.encoders.training_set import TrainingSet
from needledrop.storage.opening import place_at

N_SONGS, N_FRAMES, N_FACTORS = 96, 1292, 50
GEMM_SIZES = (1024, 2048, 4096)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Variant:
    precision: str
    is_channels_last: bool = True
    is_compiled: bool = False
    stored: str = "float16"


VARIANTS = {
    "float32": Variant("float32"),
    "float32, 8-bit store": Variant("float32", stored="uint8"),
    "float32, channels first": Variant("float32", is_channels_last=False),
    "float32, compiled": Variant("float32", is_compiled=True),
    "bfloat16": Variant("bfloat16"),
    "bfloat16, channels first": Variant("bfloat16", is_channels_last=False),
    "bfloat16, compiled": Variant("bfloat16", is_compiled=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", type=Path)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch_device(options.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{options.threads} threads"
    print(f"{machine()}; {device.type}, {where}")
    options.variants = options.variants or variants_of(device)
    used = {VARIANTS[name].precision for name in options.variants}
    ceilings = {name: ceiling(device, DTYPES[name]) for name in sorted(used)}
    for name, flops in ceilings.items():
        print(f"ceiling, matrix product in {name}: {flops / 1e9:.0f} GFLOP/s")
    with tempfile.TemporaryDirectory() as folder:
        stores = {"float16": None, "uint8": None}
        for dtype in stores:
            stores[dtype] = store_in(dtype, options.features, Path(folder) / dtype)
        measure(options, device, ceilings, stores)


def variants_of(device: torch.device) -> list[str]:
    """Those that aren't compiled, and whose precision this machine has."""
    by_itself = ceiling(device, torch.bfloat16, (256,)) > 0.2 * ceiling(
        device, torch.float32, (256,)
    )
    if not by_itself:
        print("no bfloat16 of its own: not measured")
    precisions = DTYPES if by_itself else ("float32",)
    return [
        name
        for name, variant in VARIANTS.items()
        if not variant.is_compiled and variant.precision in precisions
    ]


def measure(options, device, ceilings, stores) -> None:
    some = stores["float16"]
    targets = np.random.default_rng(0).normal(size=(len(some.song_ids), N_FACTORS))
    print(f"{len(some.song_ids)} songs, batches of {TrainingConfig().batch_size} windows of 3 s")
    print(f"{'network, variant':<38}{'windows/s':>10}{'GFLOP/s':>9}{'of ceiling':>12}{'waits':>8}")
    of_kinds: dict[str, list] = {name: [] for name in options.variants}
    for index, kind in ((0, "over time"), (2, "patches")):
        n_flops = flops_of_window(member(index), device)
        paces = {name: [] for name in options.variants}
        for turn in range(1 + options.epochs):  # the first one warms up
            for name in options.variants:
                variant = VARIANTS[name]
                store = stores[variant.stored]
                songs = TrainingSet(
                    store, store.song_ids, targets.astype(np.float32), store.frontend.window_frames
                )
                pace = epoch(prepared(member(index), variant), songs, variant, device)
                paces[name] += [pace] if turn else []
        for name, of_variant in paces.items():
            best = max(of_variant, key=lambda pace: pace.n_windows / pace.seconds)
            of_kinds[name].append(best)
            rate = best.n_windows / best.seconds
            ceiling_flops = ceilings[VARIANTS[name].precision]
            print(
                f"{kind + ', ' + name:<38}{rate:>10.0f}{rate * n_flops / 1e9:>9.1f}"
                f"{rate * n_flops / ceiling_flops:>12.1%}"
                f"{best.seconds_waiting / best.seconds:>8.1%}",
                flush=True,
            )
        print(f"  ({n_flops / 1e6:.1f} MFLOP a window)")
    for name, paces in of_kinds.items():
        waiting = sum(pace.seconds_waiting / pace.n_windows for pace in paces)
        whole = sum(pace.seconds / pace.n_windows for pace in paces)
        print(f"{'default ensemble, ' + name:<38}{waiting / whole:>39.1%}")


def member(index: int) -> nn.Module:
    with seeded_initialisation(0):
        ensemble = CnnEnsemble(CnnConfig(), n_mels=128, n_factors=N_FACTORS)
    return ensemble.members[index]


def prepared(network: nn.Module, variant: Variant) -> nn.Module:
    if not variant.is_channels_last:
        network.convolutions.to(memory_format=torch.contiguous_format)
        network.convolutions.register_forward_pre_hook(lambda _, maps: (maps[0].contiguous(),))
    if variant.is_compiled:
        network.compile()
    return network


def epoch(network, songs, variant, device):
    """The second epoch of a training by the library's own loop, which times itself."""
    paces = []
    config = TrainingConfig(
        n_epochs=2, min_epochs=2, device=device.type, precision=variant.precision
    )
    train(network, songs, None, config, on_pace=paces.append)
    return paces[-1]


def flops_of_window(network: nn.Module, device: torch.device) -> float:
    n = TrainingConfig().batch_size
    network = network.to(device)
    with FlopCounterMode(display=False) as counter:
        predicted = network(torch.randn(n, 130, 128, device=device))
        mean_squared_error(predicted, torch.zeros_like(predicted)).backward()
    return counter.get_total_flops() / n


def ceiling(device: torch.device, dtype: torch.dtype, sizes: tuple[int, ...] = GEMM_SIZES) -> float:
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        for _ in range(6):
            started = time.perf_counter()
            a @ b
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def store_in(
    dtype: str, manifest: Path | None, folder: Path, n_songs: int = N_SONGS
) -> FeatureStore:
    """A store of this dtype: the given one's songs, or noise."""
    source = FeatureStore.open(manifest) if manifest else None
    frontend = replace(source.frontend if source else FrontendConfig(), log_mel_dtype=dtype)
    generator = np.random.default_rng(0)
    (folder / "shard-0").mkdir(parents=True)
    ids = source.song_ids[:n_songs].tolist() if source else [f"SO{n}" for n in range(n_songs)]
    clips = [
        source[song]
        if source
        else ClipFeatures(
            generator.gamma(1.0, 1.0, (N_FRAMES, frontend.n_mels)).astype(np.float16),
            np.zeros((N_FRAMES, N_MFCCS), np.float16),
        )
        for song in ids
    ]
    stops = np.cumsum([len(clip.log_mel) for clip in clips]).tolist()
    save_log_mel(folder / "shard-0", np.concatenate([clip.log_mel for clip in clips]), frontend)
    np.save(folder / "shard-0" / "mfcc.npy", np.concatenate([clip.mfcc for clip in clips]))
    frames = dict(zip(ids, zip([0, *stops], stops, strict=False), strict=True))
    about = {"frames": frames, "rejected": [], "identities": {}, "log_mel_dtype": dtype}
    (folder / "shard-0" / "clips.json").write_text(json.dumps(about))
    return FeatureStore(place_at(folder), frontend, ["shard-0"], {})


if __name__ == "__main__":
    main()
