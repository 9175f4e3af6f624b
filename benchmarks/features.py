"""Feature extraction against a bare decode: core-seconds for a 30 s clip, in one run, one core.

    python benchmarks/features.py DATA [--clips 100]

Both sides see the same clips in turn; times are CPU time of one thread, scaled to 30 s of audio.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import av
import torch
from machine import machine

from needledrop.audio.decode import decode_clip
from needledrop.audio.frontend import Frontend

REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--clips", type=int, default=100)
    options = parser.parse_args()
    paths = sorted((options.data / "audio").rglob("*.ogg"))[: options.clips]
    if not paths:
        sys.exit(f"no Ogg clip below {options.data / 'audio'}")
    torch.set_num_threads(1)
    frontend = Frontend()
    clips = [path.read_bytes() for path in paths]
    seconds_of_audio = sum(len(decode_clip(clip, 22_050)) for clip in clips) / 22_050

    def ours() -> None:
        for clip in clips:
            frontend.features(decode_clip(clip, 22_050))

    def bare() -> None:
        for path in paths:
            with av.open(str(path)) as file:
                for _frame in file.decode(audio=0):
                    pass

    ours(), bare()
    times: dict[str, list[float]] = {"needledrop": [], "bare decode": []}
    for _ in range(REPEATS):
        for name, run in (("needledrop", ours), ("bare decode", bare)):
            started = time.process_time()
            run()
            times[name].append((time.process_time() - started) * 30 / seconds_of_audio)
    print(f"{machine('av', 'torchaudio')}")
    print(
        f"{len(paths)} Ogg clips, {seconds_of_audio:.0f} s of audio, one thread, {REPEATS} repeats"
    )
    for name, values in times.items():
        print(
            f"{name:<12} {statistics.median(values):.4f} core-seconds per 30 s "
            f"({min(values):.4f} to {max(values):.4f})"
        )
    ratios = [a / b for a, b in zip(*times.values(), strict=True)]
    print(f"ratio        {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
