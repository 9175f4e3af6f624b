"""``python -m serving``: serve the champion, ask a predictor, or try one out."""

import argparse
import os
import sys
from pathlib import Path

from needledrop.errors import ConfigRejected, NeedledropError
from serving.ports import check_port

_EXAMPLES = """\
examples:
  python -m serving --registry out/registry
  python -m serving --registry s3://models/registry --version 0123456789abcdef
  python -m serving --registry out/registry --store out/store
  python -m serving --registry out/registry --store out/store --audio data/audio
  python -m serving --store out/store --predictor http://localhost:8080 --http-port 9000
  python -m serving --registry out/registry --http-port 9000 --no-grpc --threads 4
  python -m serving ask --url http://localhost:8080 clip.ogg
  python -m serving ask --url http://localhost:8080 --user ID
  python -m serving try --registry out/registry clip.ogg
  python -m serving ask --help     ask a server that runs
  python -m serving try --help     start a predictor, ask it about one clip, stop it

Each option that takes a value can be given as an environment variable too, as named in its help.
What goes in and out is described in serving/README.md.
"""

_CLIP_HELP = "audio file: WAV, FLAC, MP3, Ogg, AAC or M4A"


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Before torch is imported: threads that wait by spinning starve the rest of the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command = {"ask": _ask, "try": _try}.get(arguments[0] if arguments else "")
    try:
        if command is None:
            _serve(arguments)
        else:
            command(arguments[1:])
    except NeedledropError as error:
        print(f"serving: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _serve(arguments: list[str]) -> None:
    parser = _serve_parser()
    options = parser.parse_args(arguments)
    if bool(options.registry) == bool(_predictor_url(options)):
        parser.error(
            "expected either --registry, whose champion hears clips, or --predictor, which does"
        )
    if not options.registry and not options.store:
        parser.error("expected --store, to rank from, beside --predictor")
    if options.registry:
        _check_registry(options.registry)
    for port in [options.http_port] if options.no_grpc else [options.http_port, options.grpc_port]:
        check_port(options.host, port)
    # Feast sets these for its own server, and a child inherits them: this process's metrics would
    # become files in a folder of that one.
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    # With this FastAPI would send spans and logs of its own, with what requests hold.
    os.environ.pop("FASTAPI_OTEL_AUTO_CONFIGURE", None)
    # gRPC's core writes to stderr past every logger, a line for each call that a client gets wrong.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Not at the top: `--help` and the client need neither torch nor KServe, which take seconds, and
    # a wrong limit should be said before them.
    from serving.limits import ServingLimits

    limits = ServingLimits(
        max_body_bytes=options.max_body_bytes,
        max_upload_seconds=options.max_upload_seconds,
        max_uploads=options.max_uploads,
        max_upload_bytes=options.max_upload_bytes,
        max_request_seconds=options.max_request_seconds,
        max_clip_seconds=options.max_clip_seconds,
        max_sample_rate_hz=options.max_sample_rate_hz,
        max_channels=options.max_channels,
        max_decoded_ratio=options.max_decoded_ratio,
        max_clips=options.max_clips,
        max_n_nearest=options.max_n_nearest,
        max_members=options.max_members,
        max_k=options.max_k,
        max_offset=options.max_offset,
        max_liked=options.max_liked,
        max_in_flight=options.max_in_flight,
    )
    from serving import tracing
    from serving.access import Access
    from serving.server import ServerConfig, serve

    keys = Access.from_files(
        options.api_keys, options.jwt_keys, options.jwt_audience, options.jwt_issuer
    )
    from serving.page.clips import LocalClips

    clips = LocalClips.find(options.audio, options.tracks) if options.audio else LocalClips()
    serve(
        ServerConfig(
            registry=options.registry or None,
            store=options.store or None,
            predictor_url=_predictor_url(options),
            predictor_key=os.environ.get("NEEDLEDROP_PREDICTOR_KEY") or None,
            version=options.version or None,
            clips=clips,
            host=options.host,
            http_port=options.http_port,
            grpc_port=None if options.no_grpc else options.grpc_port,
            limits=limits,
            n_threads=options.threads or len(os.sched_getaffinity(0)),
            batches=not options.no_batches,
            engine=options.engine,
            poll_seconds=options.poll_seconds,
            stale_seconds=options.stale_seconds,
            grace_seconds=options.grace_seconds,
            access_log=options.access_log,
            keys=keys,
            traces=options.traces or tracing.are_wanted(),
        )
    )


def _check_registry(registry: str) -> None:
    """Refuse what can't become a registry; an empty or absent folder may fill later."""
    from needledrop.storage.opening import is_remote, place_at

    place_at(registry)
    if is_remote(registry):
        return
    folder = Path(registry)
    if folder.exists() and not folder.is_dir():
        raise ConfigRejected(f"--registry {folder}: expected a folder, got a file")
    if (folder / "registry").is_dir():
        raise ConfigRejected(
            f"--registry {folder}: expected a registry, got a run's folder; "
            f"give --registry {folder / 'registry'}"
        )


def _serve_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Serve the champion of a registry over KServe's V1 and V2 protocols.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--registry",
        default=os.environ.get("NEEDLEDROP_REGISTRY"),
        metavar="DIR",
        help="folder or s3:// URI of the registry, whose champion hears clips; it may be empty and "
        "fill later (NEEDLEDROP_REGISTRY)",
    )
    parser.add_argument(
        "--store",
        default=os.environ.get("NEEDLEDROP_STORE"),
        metavar="DIR",
        help="folder or s3:// URI of the feature store; with it songs are recommended, too "
        "(NEEDLEDROP_STORE)",
    )
    parser.add_argument(
        "--predictor",
        default=os.environ.get("NEEDLEDROP_PREDICTOR"),
        metavar="URL",
        help="in place of --registry: another server that hears clips, such as "
        "http://localhost:8080 (NEEDLEDROP_PREDICTOR; its key: NEEDLEDROP_PREDICTOR_KEY)",
    )
    # KServe adds these to a transformer's arguments by itself.
    parser.add_argument("--predictor_host", default="", help=argparse.SUPPRESS)
    parser.add_argument("--predictor_protocol", default="", help=argparse.SUPPRESS)
    parser.add_argument("--model_name", default="", help=argparse.SUPPRESS)
    parser.add_argument("--http_port", type=int, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--version",
        default=os.environ.get("NEEDLEDROP_VERSION"),
        help="serve this version, whatever the champion is (NEEDLEDROP_VERSION)",
    )
    parser.add_argument(
        "--audio",
        default=os.environ.get("NEEDLEDROP_AUDIO"),
        metavar="DIR",
        help="folder of the catalogue's clips, which the page at / then plays (NEEDLEDROP_AUDIO)",
    )
    parser.add_argument(
        "--tracks",
        default=os.environ.get("NEEDLEDROP_TRACKS"),
        metavar="FILE",
        help="whose track ids the clips are named after; by default tracks.csv beside --audio, "
        "where there is one, and else clips are named after songs (NEEDLEDROP_TRACKS)",
    )
    for flag, kind, default, text in (
        ("--host", str, "0.0.0.0", "address to listen on"),  # noqa: S104
        ("--http-port", int, 8080, "port of REST and /metrics"),
        ("--grpc-port", int, 8081, "port of gRPC"),
        ("--max-body-bytes", int, 32 << 20, "of an HTTP body or a gRPC message"),
        ("--max-upload-seconds", float, 30.0, "for a body to arrive"),
        ("--max-uploads", int, 64, "bodies arriving at once, over HTTP and over gRPC"),
        ("--max-upload-bytes", int, 256 << 20, "of HTTP bodies that aren't whole yet"),
        ("--max-request-seconds", float, 30.0, "from a whole request to its answer"),
        ("--max-clip-seconds", float, 120.0, "of decoded audio in a clip"),
        ("--max-sample-rate-hz", int, 192_000, "of an audio file"),
        ("--max-channels", int, 8, "of an audio file"),
        ("--max-decoded-ratio", float, 1000.0, "bytes of samples for a byte of an audio file"),
        ("--max-clips", int, 16, "in a request"),
        ("--max-n-nearest", int, 100, "songs asked for with a clip"),
        ("--max-members", int, 64, "listeners or songs in a request"),
        ("--max-k", int, 500, "songs or listeners in an answer's list"),
        ("--max-offset", int, 10_000, "songs or listeners before it"),
        ("--max-liked", int, 500, "liked songs of a listener"),
        ("--max-in-flight", int, 32, "requests answered at once"),
        ("--threads", int, 0, "clips encoded at once; 0 takes one for each core"),
        ("--poll-seconds", float, 5.0, "between two looks for what is new"),
        ("--stale-seconds", float, 30.0, "without the store until answers are marked stale"),
        ("--grace-seconds", int, 20, "for requests in flight to end after SIGTERM"),
    ):
        variable = f"NEEDLEDROP_{flag[2:].replace('-', '_').upper()}"
        parser.add_argument(
            flag,
            type=kind,
            # argparse converts a text, and says what is wrong with it.
            default=os.environ.get(variable, str(default)),
            metavar="N" if kind is not str else "HOST",
            help=f"{text} (default {default}; {variable})",
        )
    parser.add_argument(
        "--api-keys",
        default=os.environ.get("NEEDLEDROP_API_KEYS"),
        metavar="FILE",
        help="answer only who shows one of these keys, one a line (NEEDLEDROP_API_KEYS)",
    )
    for flag, metavar, text in (
        (
            "--jwt-keys",
            "FILE",
            "answer who shows a JWT signed with one of these public keys, a "
            "JWKS or PEM; beside --api-keys either opens",
        ),
        ("--jwt-audience", "TEXT", "what its aud must hold; needed with --jwt-keys"),
        ("--jwt-issuer", "TEXT", "what its iss must be; by default anything"),
    ):
        variable = f"NEEDLEDROP_{flag[2:].replace('-', '_').upper()}"
        parser.add_argument(
            flag, default=os.environ.get(variable), metavar=metavar, help=f"{text} ({variable})"
        )
    parser.add_argument(
        "--no-batches",
        action="store_true",
        help="encode each clip by itself, also those that wait together",
    )
    parser.add_argument(
        "--engine",
        default=os.environ.get("NEEDLEDROP_ENGINE", "fastest"),
        metavar="NAME",
        help="what runs the network: fastest (ONNX Runtime, where it agrees with torch) or eager "
        "(torch: the same bits as in training) (default fastest; NEEDLEDROP_ENGINE)",
    )
    parser.add_argument(
        "--traces",
        action="store_true",
        help="send traces to http://localhost:4318; elsewhere, and without this option, to what "
        "OTEL_EXPORTER_OTLP_ENDPOINT names",
    )
    parser.add_argument("--no-grpc", action="store_true", help="serve HTTP alone")
    parser.add_argument(
        "--access-log",
        action="store_true",
        help="a line for each HTTP request; costs about a third of the throughput",
    )
    return parser


def _predictor_url(options: argparse.Namespace) -> str | None:
    url = str(options.predictor or options.predictor_host or "")
    if not url:
        return None
    if "://" not in url:
        url = f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise ConfigRejected(f"--predictor: expected http://host:port, got {url!r}")
    return url


def _ask(arguments: list[str]) -> None:
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


def _try(arguments: list[str]) -> None:
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
    from serving.terminal import text_from_reply, titles_from
    from serving.trial import tracks_file, try_out, untrained_song

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


if __name__ == "__main__":
    sys.exit(main())
