"""The commands ``ask`` and ``try``, of who asks a server."""

import argparse
import os
from pathlib import Path

_CLIP_HELP = "audio file: WAV, FLAC, MP3, Ogg, AAC or M4A"


def ask_command(arguments: list[str]) -> None:
    """Ask a server that runs; print its answer.

    Raises:
        NeedledropError: nobody answers, or the server refuses.
    """
    parser = _client_parser("ask", "Ask a server that runs about one clip, or about a listener.")
    parser.add_argument("clip", type=Path, nargs="?", help=_CLIP_HELP)
    parser.add_argument("--user", metavar="ID", help="in place of a clip: whose songs are wanted")
    parser.add_argument(
        "-k", type=int, default=25, metavar="N", help="songs for the listener (default 25)"
    )
    parser.add_argument(
        "--url",
        default="http://localhost:8080",
        help="where the server listens (default %(default)s); its key: NEEDLEDROP_KEY",
    )
    options = parser.parse_args(arguments)
    if (options.clip is None) == (options.user is None):
        parser.error("expected either a clip or --user")
    from serving.client import Client
    from serving.terminal import ask, text_from_recommendations, text_from_reply, titles_from

    titles = titles_from(options.tracks) if options.tracks else {}
    with Client(options.url, os.environ.get("NEEDLEDROP_KEY") or None) as client:
        if options.user is not None:
            answer = client.recommend(options.user, k=options.k)
            print(text_from_recommendations(answer, titles))
        else:
            print(text_from_reply(ask(client, options.clip, n_nearest=options.n_nearest), titles))


def try_command(arguments: list[str]) -> None:
    """Start a predictor, ask it about one clip, and stop it; print its answer.

    Raises:
        NeedledropError: there is no champion or no clip, or the clip is refused.
    """
    parser = _client_parser(
        "try",
        "Start a predictor on a free port, ask it about one clip, print the answer, and stop it. "
        "With --data the clip is one of a song that nobody has played.",
    )
    parser.add_argument("clip", type=Path, nargs="?", help=_CLIP_HELP)
    parser.add_argument(
        "--registry", required=True, metavar="DIR", help="folder or s3:// URI of the registry"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with tracks.csv and audio/"
    )
    options = parser.parse_args(arguments)
    if (options.clip is None) == (options.data is None):
        parser.error("expected either a clip or --data")
    from needledrop.plays.data_folder import tracks_file
    from serving.terminal import text_from_reply, titles_from
    from serving.trial import try_out, untrained_song

    tracks = options.tracks or (options.data and tracks_file(options.data))
    titles = titles_from(tracks) if tracks else {}
    clip = options.clip
    if clip is None:
        song = untrained_song(options.registry, tracks, options.data / "audio")
        clip, title = song.clip, titles.get(song.song_id, "")
        which = "whose plays were held out" if song.is_played else "that nobody has played"
        print(f"asked about a song {which}: {song.song_id}  {title}".rstrip())
        titles[song.song_id] = f"{title} (itself)".lstrip()
    reply = try_out(options.registry, clip, n_nearest=options.n_nearest)
    print(text_from_reply(reply, titles))


def _client_parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m serving {command}", description=description, allow_abbrev=False
    )
    parser.add_argument(
        "--n-nearest", type=int, default=10, metavar="N", help="songs to show (default 10)"
    )
    parser.add_argument(
        "--tracks", metavar="FILE", help="CSV or Parquet with artists and titles, to show them"
    )
    return parser
