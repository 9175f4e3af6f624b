"""``python -m serving``: serve the champion, ask a predictor, or try one out."""

import os
import sys
from dataclasses import fields

from needledrop.errors import NeedledropError
from serving.client_commands import ask_command, try_command
from serving.options import predictor_url, serve_parser
from serving.places import check_registry, check_store
from serving.ports import check_port


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Before torch is imported: threads that wait by spinning starve the rest of the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command = {"ask": ask_command, "try": try_command}.get(arguments[0] if arguments else "")
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
    parser = serve_parser()
    options = parser.parse_args(arguments)
    if bool(options.registry) == bool(predictor_url(options)):
        parser.error(
            "expected either --registry, whose champion hears clips, or --predictor, which does"
        )
    if not options.registry and not options.store:
        parser.error("expected --store, to rank from, beside --predictor")
    if options.registry:
        check_registry(options.registry)
    if options.store:
        check_store(options.store)
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
        **{limit.name: getattr(options, limit.name) for limit in fields(ServingLimits)}
    )
    from serving.access import Access

    keys = Access.from_files(
        options.api_keys, options.jwt_keys, options.jwt_audience, options.jwt_issuer
    )
    from serving.page.clips import LocalClips

    clips = LocalClips.find(options.audio, options.tracks) if options.audio else LocalClips()
    from serving import tracing
    from serving.server import serve
    from serving.server_config import ServerConfig

    serve(
        ServerConfig(
            registry=options.registry or None,
            store=options.store or None,
            predictor_url=predictor_url(options),
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


if __name__ == "__main__":
    sys.exit(main())
