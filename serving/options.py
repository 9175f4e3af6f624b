"""The options of ``python -m serving``, each with its environment variable."""

import argparse
import os
from collections.abc import Callable, Sequence

from needledrop.errors import ConfigRejected

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


_PLACES = (
    (
        "--registry",
        "DIR",
        "folder or s3:// URI of the registry, whose champion hears clips; it may be empty and fill "
        "later",
    ),
    (
        "--store",
        "DIR",
        "folder or s3:// URI of the feature store; with it songs are recommended, too; the folder "
        "must be there, and may be empty and fill later",
    ),
    (
        "--predictor",
        "URL",
        "in place of --registry: another server that hears clips, such as http://localhost:8080; "
        "its key: NEEDLEDROP_PREDICTOR_KEY",
    ),
    ("--version", "ID", "serve this version, whatever the champion is"),
    ("--audio", "DIR", "folder of the catalogue's clips, which the page at / then plays"),
    (
        "--tracks",
        "FILE",
        "whose track ids the clips are named after; by default tracks.csv beside --audio, where "
        "there is one, and else clips are named after songs",
    ),
)
_LISTENING = (
    ("--host", str, "0.0.0.0", "address to listen on"),  # noqa: S104
    ("--http-port", int, 8080, "port of REST and /metrics"),
    ("--grpc-port", int, 8081, "port of gRPC"),
    ("--threads", int, 0, "clips encoded at once; 0 takes one for each core"),
    ("--poll-seconds", float, 5.0, "between two looks for what is new"),
    ("--stale-seconds", float, 30.0, "without the store until answers are marked stale"),
    ("--grace-seconds", int, 20, "for requests in flight to end after SIGTERM"),
)
_LIMITS = (
    ("--max-body-bytes", int, 32 << 20, "of an HTTP body or a gRPC message"),
    ("--max-upload-seconds", float, 30.0, "for a body to arrive"),
    ("--max-uploads", int, 64, "bodies arriving at once, over HTTP and over gRPC"),
    ("--max-upload-bytes", int, 256 << 20, "of HTTP bodies that aren't whole yet"),
    ("--max-idle-seconds", float, 300.0, "of a gRPC connection without a call"),
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
)
_WHO_MAY_ASK = (
    ("--api-keys", "FILE", "answer only who shows one of these keys, one a line"),
    (
        "--jwt-keys",
        "FILE",
        "answer who shows a JWT signed with one of these public keys, a JWKS or PEM; beside "
        "--api-keys either opens",
    ),
    ("--jwt-audience", "TEXT", "what its aud must hold; needed with --jwt-keys"),
    ("--jwt-issuer", "TEXT", "what its iss must be; by default anything"),
)


def serve_parser() -> argparse.ArgumentParser:
    """Return the parser of what serves; a variable of the environment is an option's default."""
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Serve the champion of a registry over KServe's V1 and V2 protocols.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_texts(parser, "what is served", _PLACES)
    _add_numbers(parser, "where and how", _LISTENING)
    _add_texts(parser, "who may ask; by default anybody", _WHO_MAY_ASK)
    _add_numbers(parser, "limits; beyond them a request is refused", _LIMITS)
    _add_ways(parser, "ways of working")
    # KServe adds these to a transformer's arguments by itself.
    for flag in ("--predictor_host", "--predictor_protocol", "--model_name"):
        parser.add_argument(flag, default="", help=argparse.SUPPRESS)
    parser.add_argument("--http_port", type=int, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _add_texts(
    parser: argparse.ArgumentParser, title: str, options: Sequence[tuple[str, str, str]]
) -> None:
    group = parser.add_argument_group(title)
    for flag, metavar, text in options:
        variable = _variable(flag)
        group.add_argument(
            flag, default=os.environ.get(variable), metavar=metavar, help=f"{text} ({variable})"
        )


def _add_numbers(
    parser: argparse.ArgumentParser,
    title: str,
    options: Sequence[tuple[str, Callable[[str], object], object, str]],
) -> None:
    group = parser.add_argument_group(title)
    for flag, kind, default, text in options:
        variable = _variable(flag)
        group.add_argument(
            flag,
            type=kind,
            # argparse converts a text, and says what is wrong with it.
            default=os.environ.get(variable, str(default)),
            metavar="HOST" if kind is str else "N",
            help=f"{text} (default {default}; {variable})",
        )


def _add_ways(parser: argparse.ArgumentParser, title: str) -> None:
    group = parser.add_argument_group(title)
    group.add_argument(
        "--engine",
        default=os.environ.get("NEEDLEDROP_ENGINE", "fastest"),
        metavar="NAME",
        help="what runs the network: fastest (ONNX Runtime, where it agrees with torch) or eager "
        "(torch: the same bits as in training) (default fastest; NEEDLEDROP_ENGINE)",
    )
    group.add_argument(
        "--no-batches",
        action="store_true",
        help="encode each clip by itself, also those that wait together",
    )
    group.add_argument("--no-grpc", action="store_true", help="serve HTTP alone")
    group.add_argument(
        "--traces",
        action="store_true",
        help="send traces to http://localhost:4318; elsewhere, and without this option, to what "
        "OTEL_EXPORTER_OTLP_ENDPOINT names",
    )
    group.add_argument(
        "--access-log",
        action="store_true",
        help="a line for each HTTP request; costs about a third of the throughput",
    )


def _variable(flag: str) -> str:
    return f"NEEDLEDROP_{flag[2:].replace('-', '_').upper()}"


def predictor_url(options: argparse.Namespace) -> str | None:
    """Return the URL of the predictor elsewhere, given by a person or by KServe; None without one.

    Raises:
        ConfigRejected: it is no URL of HTTP.
    """
    url = str(options.predictor or options.predictor_host or "")
    if not url:
        return None
    if "://" not in url:
        url = f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise ConfigRejected(f"--predictor: expected http://host:port, got {url!r}")
    return url
