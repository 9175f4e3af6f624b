"""The pod that a step runs in: what it owns goes with it."""

import os
from typing import Any

POD_NAME, POD_UID = "NEEDLEDROP_POD_NAME", "NEEDLEDROP_POD_UID"
"""Set for steps on a cluster (pipelines/cluster_settings.py), and nowhere else."""


def own_pod() -> list[dict[str, Any]]:
    """Return the step's pod as the owner of Kubernetes objects; none in a run on one machine."""
    name, uid = os.environ.get(POD_NAME), os.environ.get(POD_UID)
    return [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}] if name and uid else []
