"""The page to look at, with thousands of songs: how long it takes to write, to open and to move.

    PYTHONPATH=. python benchmarks/looking_at_size.py FOLDER [--songs 5000] [--picture FILE]

FOLDER gets a small network with random weights, a catalogue of ``--songs`` songs in 40 styles, a
short clip of each, tracks, plays and tags, unless they are there. ``python -m needledrop.looking``
then writes the page, hearing every clip, and a headless Chromium without a GPU opens it from the
disk. There it is measured how long it takes until the page answers, how long the map's
paints take while the map is zoomed into, dragged and pointed at, and how
many frames a second the browser showed meanwhile.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np

from benchmarks.machine import machine
from tests.serving.page.browser import chromium

N_STYLES, N_FACTORS, N_USERS = 40, 50, 2_000
CLIP_HZ, CLIP_SECONDS = 8_000, 3.2
N_MOVES = 60

# Times what the page does in a frame, which is painting, and the frames.
WATCH = """
  window.watch = { paints: [], frames: [], before: 0 };
  const own = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (act) => own((now) => {
    const begun = performance.now();
    act(now);
    watch.paints.push(performance.now() - begun);
  });
  const frame = (now) => {
    watch.frames.push(now - watch.before);
    watch.before = now;
    own(frame);
  };
  own(frame);
"""


def make(folder: Path, n_songs: int) -> None:
    """Write a bundle and a data folder."""
    import torch

    from needledrop.audio.frontend import FrontendConfig
    from needledrop.encoders.bundle import Bundle
    from needledrop.encoders.catalogue import Catalogue
    from needledrop.encoders.cnn import CnnConfig, CnnEncoder, CnnEnsemble
    from needledrop.encoders.targets import TargetScaler

    generator = np.random.default_rng(0)
    torch.manual_seed(0)
    style = generator.integers(0, N_STYLES, n_songs)
    song_ids = [f"SO{number:06d}" for number in range(n_songs)]
    tastes = generator.standard_normal((N_STYLES, N_FACTORS), dtype=np.float32)
    own = generator.standard_normal((n_songs, N_FACTORS), dtype=np.float32)
    factors = tastes[style] + 0.5 * own
    users = generator.standard_normal((N_USERS, N_FACTORS))
    config = CnnConfig(n_filters=(8, 8), pooling_frames=(4, 2), n_hidden=(16,))
    network = CnnEnsemble(config, n_mels=FrontendConfig().n_mels, n_factors=N_FACTORS).eval()
    Bundle(
        encoder=CnnEncoder(network, config, TargetScaler.fit(factors), window_frames=130),
        frontend=FrontendConfig(),
        catalogue=Catalogue(
            song_ids=np.array(song_ids),
            song_factors=factors,
            sources=np.where(np.arange(n_songs) % 20, "usage", "audio"),
            is_training_song=(np.arange(n_songs) % 20 > 0) & (np.arange(n_songs) % 5 < 3),
        ),
        gram=users.T @ users,
        about={},
    ).save(folder / "bundle")
    data = folder / "data"
    (data / "audio").mkdir(parents=True)
    tracks = ["song_id,track_id,artist_id,artist_name,title"]
    tags, plays = ["track_id,tag,score"], []
    for number, song_id in enumerate(song_ids):
        track, artist = f"TR{number:06d}", int(style[number]) * 40 + number % 40
        tracks.append(f"{song_id},{track},AR{artist},Artist {artist},Song {number}")
        tags.append(f"{track},style {style[number]},9")
        n_listeners = int(min(N_USERS, 3 / generator.uniform() ** 0.7))
        if number % 20:
            plays += [f"user{user}\t{song_id}\t1" for user in range(n_listeners)]
        write_clip(data / "audio" / f"{track}.wav", int(style[number]), generator)
    for name, lines in (("tracks.csv", tracks), ("tags.csv", tags), ("plays.tsv", plays)):
        (data / name).write_text("\n".join(lines) + "\n")
    (folder / "whole").touch()


def write_clip(path: Path, style: int, generator: np.random.Generator) -> None:
    """Three partials of the style, each song a little off, and noise."""
    at = np.arange(int(CLIP_HZ * CLIP_SECONDS)) / CLIP_HZ
    of_style = np.random.default_rng(style)
    sound = 0.05 * generator.standard_normal(len(at))
    for hertz, loud in zip(
        of_style.uniform(80, 3_800, 3), of_style.uniform(0.1, 1, 3), strict=True
    ):
        sound += loud * np.sin(2 * np.pi * hertz * generator.normal(1, 0.02) * at)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(CLIP_HZ)
        file.writeframes((8_000 * sound).clip(-32_768, 32_767).astype("<i2").tobytes())


def written(folder: Path, n_songs: int) -> Path:
    """Write the page by the command; print what it took."""
    page = folder / "look.html"
    command = [
        *(sys.executable, "-m", "needledrop.looking", "--bundle", str(folder / "bundle")),
        *("--data", str(folder / "data"), "--out", str(page), "--songs", str(n_songs)),
    ]
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("the page could not be written")
    print(
        f"written in {time.perf_counter() - started:.1f} s, "
        f"{usage.ru_utime + usage.ru_stime:.1f} processor-s, "
        f"peak {usage.ru_maxrss / 1024:,.0f} MB; {page.stat().st_size / 1e6:.2f} MB",
        flush=True,
    )
    return page


def look(path: Path, picture: Path | None) -> None:
    """Open the page and move the map; print times."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900}, device_scale_factor=2)
        page.add_init_script(WATCH)
        started = time.perf_counter()
        page.goto(path.as_uri())
        page.wait_for_function("document.getElementById('song-title').textContent.length > 0")
        loaded = page.evaluate(
            "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
        )
        opened = time.perf_counter() - started
        print(f"opened: scripts done after {loaded:.0f} ms, shown after {1e3 * opened:.0f} ms")
        page.locator("#map").scroll_into_view_if_needed()
        box = page.locator("#map").bounding_box()
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(*middle)

        def told(what: str, act) -> None:
            page.evaluate("Object.assign(watch, { paints: [], frames: [] })")
            begun = time.perf_counter()
            for number in range(N_MOVES):
                act(number)
            seconds = time.perf_counter() - begun
            paints, frames = page.evaluate("[watch.paints, watch.frames]")
            print(
                f"{what}: {len(frames) / seconds:.0f} frames a second, a paint takes "
                f"{statistics.median(paints or [0]):.1f} ms (longest {max(paints or [0]):.1f}), "
                f"longest frame {max(frames):.0f} ms; {len(paints)} paints",
                flush=True,
            )

        wheel = (
            "steps => document.getElementById('map').dispatchEvent(new WheelEvent('wheel', "
            "{deltaY: steps, ctrlKey: true, cancelable: true, clientX: innerWidth / 2, "
            "clientY: innerHeight / 2}))"
        )
        told("pointed at", lambda n: page.mouse.move(middle[0] - 300 + 10 * n, middle[1] + 2 * n))
        if picture:
            page.mouse.move(5, 5)
            page.screenshot(path=picture, full_page=True)
        told("zoomed in", lambda _: page.evaluate(wheel, -8))
        page.mouse.move(*middle)
        page.mouse.down()
        told("dragged", lambda n: page.mouse.move(middle[0] + 4 * n, middle[1] + 2 * n))
        page.mouse.up()
        if picture:
            page.locator("#map").screenshot(path=picture.with_stem(f"{picture.stem}-near"))
        told("zoomed out", lambda _: page.evaluate(wheel, 8))
        begun = time.perf_counter()
        page.locator("#wanted").fill("song 12")
        page.wait_for_function("document.getElementById('matches').childElementCount > 0")
        print(f"searched in {1e3 * (time.perf_counter() - begun):.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--songs", type=int, default=5_000)
    parser.add_argument("--picture", type=Path, help="where to put a picture of it")
    parser.add_argument("--again", action="store_true", help="open the page that is there")
    options = parser.parse_args()
    folder = options.folder / str(options.songs)
    if not (folder / "whole").exists():
        make(folder, options.songs)
    where = machine("openTSNE", "playwright")
    print(f"{where}; load {os.getloadavg()[0]:.1f}; {options.songs:,} songs", flush=True)
    again = options.again and (folder / "look.html").exists()
    look(folder / "look.html" if again else written(folder, options.songs), options.picture)


if __name__ == "__main__":
    main()
