"""What the page is tried on: songs with titles, of which some have a clip on this machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from needledrop.encoders.bundle import Bundle
from tests.serving.ranking_world import make_world
from tests.serving.world import N_SONGS, Response, Server, wav_bytes, waveform

#: Titles that would do harm where they were taken for anything but text.
HARMFUL = "<script>document.title='harmed'</script><img src=x onerror=\"document.title='harmed'\">"
TITLES = [HARMFUL if number % 2 else f"Song “{number}” & more" for number in range(N_SONGS)]
N_CLIPS = 6
KEY = "a-key-of-the-page-0123456789"
CLIP = wav_bytes(waveform(4, seed=11))


class GuardedServer(Server):
    """A server that is shown a key with each request."""

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        return super().request(method, path, body, {**(headers or {}), "x-api-key": KEY})


def make_page_world(
    folder: Path, *options: str, kind: type[Server] = Server
) -> tuple[Bundle, Server]:
    """Promote and publish a bundle, put clips beside it, and serve it all.

    Clips are named after tracks, ``TR`` and a number, as tracks.csv beside them says.
    """
    bundle = make_world(folder, seed=1, titles=TITLES)
    audio = folder / "data" / "audio" / "A" / "B"
    audio.mkdir(parents=True)
    lines = ["song_id,track_id"]
    for number, song_id in enumerate(bundle.catalogue.song_ids.tolist()):
        lines.append(f"{song_id},TR{number:03d}")
        if number < N_CLIPS:
            (audio / f"TR{number:03d}.wav").write_bytes(wav_bytes(waveform(3, seed=number)))
    (folder / "data" / "tracks.csv").write_text("\n".join(lines) + "\n")
    server = kind(
        folder / "registry",
        folder,
        *("--store", str(folder / "store"), "--audio", str(folder / "data" / "audio")),
        *options,
    )
    server.wait_until_it_listens()
    return bundle, server


@contextmanager
def stopped_at_the_end(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
