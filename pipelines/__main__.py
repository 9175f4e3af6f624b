"""The command line: ``python -m pipelines run | submit | schedule | compile | rollback``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from needledrop.drafts import draft_of
from needledrop.errors import ConfigRejected, InputError
from needledrop.exit_status import DONE, FAILED, NOT_PROMOTED, exit_status
from pipelines.known import NAMES, pipeline_named
from pipelines.submitting.options import add_commands as add_cluster_commands

_EXAMPLES = """\
examples:
  python -m pipelines run train --data runs/demo/data --out runs/demo
  python -m pipelines run train --data ~/music --out runs/mine --set split_kind=artist
  python -m pipelines run train --data ~/music --out runs/mine --config my.yaml --set n_epochs=80
  python -m pipelines run train --data ~/music --out runs/mine --runner docker
  python -m pipelines run score-new-songs --data ~/music --out runs/mine
  python -m pipelines run reproduce-paper --data runs/demo/data --out runs/paper \
      --config pipelines/configs/reproduce-paper/demo.yaml
  python -m pipelines parameters train
  python -m pipelines compile
  python -m pipelines rollback --out runs/mine
  python -m pipelines rollback --cluster --namespace music --registry URI --store URI

exit status of run train: 0 promoted, 3 not promoted, 1 failed, 2 usage
exit status of run score-new-songs and reproduce-paper: 0 done, 1 failed, 2 usage
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    return exit_status(
        lambda: int(options.command(options)), if_stopped="the same command goes on from here"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines",
        description="Runs needledrop's pipelines.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run a pipeline on this machine",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("pipeline", choices=NAMES)
    run.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with plays, tracks and audio/"
    )
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run's folder")
    run.add_argument("--config", type=Path, metavar="YAML", help="parameters, one a line")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one parameter; stronger than --config; may be given several times",
    )
    run.add_argument(
        "--runner",
        choices=["subprocess", "docker"],
        default="subprocess",
        help="each step in this environment, or in its image (make images)",
    )
    run.set_defaults(command=_run)
    add_cluster_commands(commands)

    listing = commands.add_parser("parameters", help="list a pipeline's parameters")
    listing.add_argument("pipeline", choices=NAMES)
    listing.set_defaults(command=_list_parameters)

    compiling = commands.add_parser("compile", help="write the pipelines' YAML for Kubeflow")
    compiling.add_argument(
        "--check", action="store_true", help="only compare with the YAML that is there"
    )
    compiling.set_defaults(command=_compile)

    rollback = commands.add_parser("rollback", help="put the previous champion back")
    rollback.add_argument("--out", type=Path, metavar="DIR", help="the run's folder")
    rollback.add_argument("--registry", metavar="URI", help="in place of OUT/registry")
    rollback.add_argument("--store", metavar="URI", help="in place of OUT/store")
    rollback.add_argument("--cluster", action="store_true", help="on KServe, too")
    rollback.add_argument("--namespace", default="", help="of the InferenceService")
    rollback.add_argument("--predictor", default="needledrop", metavar="NAME", help="its name")
    rollback.add_argument("--mode", default="Standard", metavar="MODE", help="Standard or Knative")
    rollback.add_argument("--timeout-seconds", type=int, default=900, metavar="N")
    rollback.set_defaults(command=_rollback)
    return parser


def _run(options: argparse.Namespace) -> int:
    from pipelines.data_folder import OPTIONAL_SOURCES, SOURCES, sources_in
    from pipelines.local_run import run_locally
    from pipelines.parameters import checked, parameters_of, parsed_settings, read_config

    pipeline = pipeline_named(options.pipeline)
    known = _settable(parameters_of(pipeline))
    values = read_config(options.config) if options.config else {}
    values |= parsed_settings(options.set, known)
    values = checked(values, known)
    sources = [name for name in SOURCES if name in known]
    if options.data:
        optional = [name for name in OPTIONAL_SOURCES if name in known]
        wanted = [name for name in [*sources, *optional] if not values.get(name)]
        values |= sources_in(options.data, wanted)
    if missing := [name for name in sources if not values.get(name)]:
        raise ConfigRejected(f"expected --data DIR, or --set {missing[0]}=PATH")

    _check_writable(options.out, "--out")
    _check_places(values, trains=options.pipeline == "train")
    if options.runner == "subprocess" and values.get("device") == "cuda":
        _check_device()  # a container may be shown other devices
    print(f"{pipeline.name}: {options.data or values[sources[0]]} -> {options.out}")
    run = run_locally(pipeline, values, options.out, in_containers=options.runner == "docker")
    promoted = run.has_run("deploy-predictor")
    outcome = "promoted" if promoted else "not promoted"
    if options.pipeline != "train":
        outcome = "done"
    in_steps = run.seconds_in_steps
    print(
        f"\n{outcome} after {run.seconds:.0f} s ({in_steps:.0f} s of them in the steps); "
        f"reports in {options.out / run.report.name}"
    )
    return NOT_PROMOTED if outcome == "not promoted" else DONE


def _check_writable(folder: Path, name: str) -> None:
    try:
        with draft_of(folder / "run") as draft:
            draft.touch()
    except OSError as error:
        raise InputError(
            f"{name} {folder}: expected a folder that can be written, got {error.strerror}; "
            f"give another {name}"
        ) from error


def _check_places(values: dict[str, Any], *, trains: bool) -> None:
    """Find out now, and not after an hour of training, which place is none or can't be used."""
    from components.deploy_predictor.config import KSERVE
    from feature_repo.opening import profile_path
    from needledrop.promotion.registry import Registry
    from needledrop.storage.opening import is_remote, place_at

    for name in ("audio", "workspace"):
        place_at(values.get(name, "."))
    for name in ("workspace", "store", *(("registry",) if trains else ())):
        if name in values and not is_remote(values[name]):
            _check_writable(Path(values[name].removeprefix("file://")), name)
    if is_remote(values.get("store", ".")):
        profile_path(None, of_uri=True)
    if "registry" in values:
        Registry(values["registry"]).champion()
    if values.get("deploy_to") == KSERVE:
        from components.deploy_predictor.cluster import Cluster

        Cluster(values.get("predictor_name", "needledrop"), values.get("namespace", ""))


def _check_device() -> None:
    from needledrop.encoders.device import torch_device

    torch_device("cuda", "device")


def _settable(known: dict[str, Any]) -> dict[str, Any]:
    """Leave out what every run makes for itself."""
    return {name: parameter for name, parameter in known.items() if name != "run_id"}


def _list_parameters(options: argparse.Namespace) -> int:
    from pipelines.parameters import parameters_of

    for parameter in _settable(parameters_of(pipeline_named(options.pipeline))).values():
        default = "" if parameter.default is None else f" = {parameter.default}"
        meaning = " ".join(parameter.description.split())
        print(f"{parameter.name}: {parameter.kind.__name__}{default}\n    {meaning}")
    return 0


def _compile(options: argparse.Namespace) -> int:
    from pipelines.compiled import compile_all, stale_files

    if not options.check:
        for path in compile_all():
            print(f"wrote {path}")
        return 0
    if stale := stale_files():
        names = ", ".join(path.name for path in stale)
        print(
            f"error: {names}: not what the pipeline compiles to now; "
            "run python -m pipelines compile and commit it",
            file=sys.stderr,
        )
        return FAILED
    print("compiled pipelines are up to date")
    return 0


def _rollback(options: argparse.Namespace) -> int:
    from components.deploy_predictor.config import DeployConfig
    from components.deploy_predictor.rolling_back import roll_back

    if options.out is None and not (options.registry and options.store):
        raise ConfigRejected("expected --out DIR, or both --registry URI and --store URI")
    if options.namespace and not options.cluster:
        raise ConfigRejected(
            "--namespace: expected --cluster beside it; without it KServe goes on with the version "
            "that is taken back"
        )
    config = DeployConfig(
        deploy_to="kserve" if options.cluster else "registry",
        namespace=options.namespace,
        predictor_name=options.predictor,
        deployment_mode=options.mode,
        deploy_timeout_seconds=options.timeout_seconds,
    )
    registry = options.registry or str(options.out / "registry")
    store = options.store or str(options.out / "store")
    move = roll_back(registry, store, config)
    print(f"champion: {move.to_version} (rolled back from {move.from_version})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
