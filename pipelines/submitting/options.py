"""The options of submit and schedule, and what they make."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

from needledrop.errors import ConfigRejected
from pipelines.known import NAMES, pipeline_named

_EXAMPLES = """\
examples:
  python -m pipelines submit train --host https://kubeflow.example.org/pipeline --namespace music \\
    --config cluster.yaml --set n_epochs=40 --wait --timeout 6h --summary summary.md
  python -m pipelines schedule train --host ... --namespace music --config cluster.yaml \\
    --name weekly --cron "0 3 * * 1"
  python -m pipelines schedule train --host ... --namespace music --list
  python -m pipelines schedule train --host ... --namespace music --name weekly --remove

the token: --token-file, else the variable NEEDLEDROP_KFP_TOKEN, else the service account's token
that Kubernetes mounts into a pod for Kubeflow Pipelines, else none

exit status of submit train --wait: 0 promoted, 3 not promoted, 1 failed or cancelled, 2 usage
exit status of submit score-new-songs --wait: 0 done, 1 failed or cancelled, 2 usage
"""
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def add_commands(commands: Any) -> None:
    """Add submit and schedule to the command line."""
    submit = _command(commands, "submit", "run a pipeline on a Kubeflow cluster")
    _add_run_options(submit)
    submit.add_argument("--wait", action="store_true", help="follow the run until it has ended")
    submit.add_argument(
        "--timeout",
        type=_duration,
        metavar="TIME",
        help="cancel the run when it isn't done by then: 90m, 6h or seconds (with --wait)",
    )
    submit.add_argument(
        "--poll",
        type=_duration,
        default=5.0,
        metavar="TIME",
        help="pause between two looks at the run, 5s where not given",
    )
    submit.add_argument("--summary", type=Path, metavar="FILE", help="write the outcome there")
    submit.set_defaults(command=_submit)

    schedule = _command(commands, "schedule", "make, change, list or remove a recurring run")
    _add_run_options(schedule)
    schedule.add_argument("--name", help="of the schedule; one that exists is replaced")
    schedule.add_argument("--cron", help="five fields, or six with seconds first")
    schedule.add_argument("--list", action="store_true", help="show the schedules")
    schedule.add_argument("--remove", action="store_true", help="remove the schedule --name")
    schedule.set_defaults(command=_schedule)


def _command(commands: Any, name: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pipeline", choices=NAMES)
    connection = parser.add_argument_group("the cluster")
    connection.add_argument("--host", metavar="URL", required=True, help="of the pipelines' API")
    connection.add_argument("--namespace", default="", help="of your profile, on a shared cluster")
    connection.add_argument("--ui-host", metavar="URL", help="of the pages, where it isn't --host")
    connection.add_argument("--token-file", type=Path, metavar="FILE")
    connection.add_argument("--ca-cert", type=Path, metavar="PEM", help="of a private authority")
    connection.add_argument(
        "--patience",
        type=_duration,
        default=300.0,
        metavar="TIME",
        help="how long to ask again when no answer comes, 5m where not given",
    )
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="YAML", help="parameters, one a line")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one parameter; stronger than --config; may be given several times",
    )
    parser.add_argument("--experiment", default="needledrop", help="the UI's folder of runs")
    parser.add_argument("--service-account", help="of the run's pods")
    parser.add_argument(
        "--allow-dirty", action="store_true", help="take code that isn't committed, and mark it"
    )


def _duration(text: str) -> float:
    """Read 90, 90s, 15m or 6h as seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 15m or 6h, got {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def _submit(options: argparse.Namespace) -> int:
    from pipelines.submitting.submit import submit

    if options.timeout is not None and not options.wait:
        raise ConfigRejected("--timeout: expected --wait beside it; nobody else ends the run")
    return submit(
        pipeline_named(options.pipeline),
        connection_from(options),
        parameters_from(options),
        experiment=options.experiment,
        service_account=options.service_account,
        allow_dirty=options.allow_dirty,
        wait=options.wait,
        timeout_seconds=options.timeout,
        poll_seconds=options.poll,
        summary=options.summary,
    )


def _schedule(options: argparse.Namespace) -> int:
    from pipelines.submitting.cron import six_fields
    from pipelines.submitting.scheduling import remove, schedule, show

    if sum(map(bool, (options.list, options.remove, options.cron))) > 1:
        raise ConfigRejected("expected one of --list, --remove and --cron, got several")
    if options.list:
        return show(connection_from(options))
    if not (options.name or "").strip():
        raise ConfigRejected("expected --name NAME, or --list")
    if options.remove:
        return remove(pipeline_named(options.pipeline).name, options.name, connection_from(options))
    if not options.cron:
        raise ConfigRejected('expected --cron "0 3 * * 1", or --remove, or --list')
    return schedule(
        pipeline_named(options.pipeline),
        options.name,
        six_fields(options.cron),
        parameters_from(options),
        connection_from(options),
        experiment=options.experiment,
        service_account=options.service_account,
        allow_dirty=options.allow_dirty,
    )


def parameters_from(options: argparse.Namespace) -> dict[str, Any]:
    """Read and check the parameters before anything is sent.

    Raises:
        ConfigRejected: as for a run on this machine; or one without a default is missing.
    """
    from needledrop.storage.opening import is_remote, place_at
    from pipelines.parameters import checked, parameters_of, parsed_settings, read_config

    known = {
        name: parameter
        for name, parameter in parameters_of(pipeline_named(options.pipeline)).items()
        if name != "run_id"  # is Kubeflow's own
    }
    values = read_config(options.config) if options.config else {}
    values |= parsed_settings(options.set, known)
    values = checked(values, known)
    required = [name for name, parameter in known.items() if parameter.default is None]
    if missing := [name for name in required if not values.get(name)]:
        raise ConfigRejected(
            f"expected {', '.join(missing)}; give --set {missing[0]}=URI, or a line in --config"
        )
    for name in ("audio", "registry", "store", "workspace"):
        if is_remote(values.get(name, "")) and not values[name].startswith("s3://"):
            place_at(values[name])  # raises
    return values


def connection_from(options: argparse.Namespace) -> Any:
    """Make the connection that the options name; nothing is sent yet.

    Raises:
        ConfigRejected: no address, no token where one was promised, no certificate.
    """
    from pipelines.submitting.connection import Connection
    from pipelines.submitting.token import token_source

    token = token_source(options.token_file, os.environ)
    if token.read() and _is_open_road(options.host):
        print(
            f"warning: the token goes to {options.host} without TLS; whoever is on the way can "
            "read it: give an address with https://",
            file=sys.stderr,
        )
    return Connection(
        options.host,
        token=token,
        namespace=options.namespace,
        ui=options.ui_host,
        ca_cert=options.ca_cert,
        patience_seconds=options.patience,
    )


def _is_open_road(host: str) -> bool:
    """Tell whether requests leave this machine, or the cluster, unencrypted."""
    near = r"http://(localhost|127\.[\d.]+|\[::1\]|[\w.-]+\.svc(\.cluster\.local)?)(:\d+)?(/.*)?"
    return host.startswith("http://") and re.fullmatch(near, host) is None
