"""Pushes a batch step's figures to a Prometheus Pushgateway, where one is configured.

A step ends long before Prometheus would come by to scrape it, so it leaves its figures at a
gateway. They are grouped by pipeline and component, never by run: the next run of the same step
replaces them, and the number of series stays what it is.
"""

import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric, push_to_gateway
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

GATEWAY_VARIABLE = "NEEDLEDROP_PUSHGATEWAY"


def push_figures(
    figures: Mapping[str, float],
    *,
    component: str,
    pipeline: str = "needledrop-train",
    gateway: str | None = None,
    timeout_seconds: float = 5.0,
) -> bool:
    """Push figures as gauges named ``needledrop_<name>``; never fails, never takes long.

    Args:
        figures: name -> value, in base units: ``{"plays": 1200, "duration_seconds": 3.5}``.
        component: the step, such as ``split_songs``.
        pipeline: whose step it is.
        gateway: address; by default the variable NEEDLEDROP_PUSHGATEWAY, without which nothing is
            pushed.
        timeout_seconds: for all of it, looking up the gateway's name included.

    Returns:
        Whether the gateway took the figures.
    """
    gateway = gateway or os.environ.get(GATEWAY_VARIABLE, "")
    if not gateway:
        return False
    outcome: list[str] = []

    def push() -> None:
        try:
            registry = CollectorRegistry()
            registry.register(_Figures(figures))
            push_to_gateway(
                gateway,
                job="needledrop",
                grouping_key={"pipeline": pipeline, "component": component},
                registry=registry,
                timeout=timeout_seconds,
            )
            outcome.append("")
        except Exception as error:  # a gateway's trouble is not the run's
            outcome.append(f"{type(error).__name__}: {error}")

    # A name server or a gateway that drips can outlast any socket's timeout; a thread that is left
    # behind can't.
    thread = threading.Thread(target=push, daemon=True)
    thread.start()
    thread.join(timeout_seconds)
    trouble = outcome[0] if outcome else f"no answer in {timeout_seconds:g} s"
    if trouble:
        print(f"push: the figures of {component} were not pushed ({trouble})", file=sys.stderr)
    return not trouble


class _Figures(Collector):
    """Plain values: no metric object, so none of prometheus_client's modes can interfere."""

    def __init__(self, figures: Mapping[str, float]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for name, value in self._figures.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"expected a figure's name like accepted_plays, got {name!r}")
            yield GaugeMetricFamily(
                f"needledrop_{name}", f"{name.replace('_', ' ')} of the last run.", float(value)
            )
