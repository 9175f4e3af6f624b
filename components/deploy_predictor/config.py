"""Where a promoted version is deployed, and how carefully."""

import math
import re
from dataclasses import dataclass

from needledrop.errors import ConfigRejected

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME = 34
"""KServe labels a canary's pods ``isvc.<name>-v<12 digits>-predictor``: 63 characters at most."""

REGISTRY, KSERVE = "registry", "kserve"
STANDARD, KNATIVE = "Standard", "Knative"


@dataclass(frozen=True)
class DeployConfig:
    """How to deploy.

    Attributes:
        deploy_to: "registry" moves the champion pointer, which predictors that run beside the
            registry follow; "kserve" rolls the version out as an InferenceService, too.
        namespace: of the InferenceService; empty for the namespace that the step runs in.
        predictor_name: of the InferenceService.
        deployment_mode: of KServe: "Standard" or "Knative".
        canary_share: of the traffic that a new version gets until it has passed its check; none
            behind a transformer in Standard mode.
        predictor_image: of the predictor; empty for the ServingRuntime's own.
        deploy_timeout_seconds: for each of the two waits: the canary's and the promoted version's.
        poll_seconds: between two looks at the cluster.
        retry_seconds: before the first repetition of a call that failed; doubled each time.
        ask_seconds: for the predictor to answer the check.
    """

    deploy_to: str = REGISTRY
    namespace: str = ""
    predictor_name: str = "needledrop"
    deployment_mode: str = STANDARD
    canary_share: float = 0.1
    predictor_image: str = ""
    deploy_timeout_seconds: int = 900
    poll_seconds: float = 2.0
    retry_seconds: float = 0.5
    ask_seconds: float = 30.0

    def __post_init__(self) -> None:
        for field, allowed in (
            ("deploy_to", (REGISTRY, KSERVE)),
            ("deployment_mode", (STANDARD, KNATIVE)),
        ):
            if (value := getattr(self, field)) not in allowed:
                expected = " or ".join(map(repr, allowed))
                raise ConfigRejected(f"DeployConfig.{field}: expected {expected}, got {value!r}")
        _check_name("namespace", self.namespace, 63, may_be_empty=True)
        _check_name("predictor_name", self.predictor_name, _LONGEST_NAME)
        if not (math.isfinite(self.canary_share) and 0.01 <= self.canary_share <= 0.5):
            raise ConfigRejected(
                f"DeployConfig.canary_share: expected 0.01 to 0.5, got {self.canary_share}"
            )
        if any(character.isspace() for character in self.predictor_image):
            raise ConfigRejected(
                "DeployConfig.predictor_image: expected an image such as needledrop-serve:0.1.0, "
                f"got {self.predictor_image!r}"
            )
        if not 1 <= self.deploy_timeout_seconds <= 86_400:
            raise ConfigRejected(
                "DeployConfig.deploy_timeout_seconds: expected 1 to 86400, "
                f"got {self.deploy_timeout_seconds}"
            )

    @property
    def canary_percent(self) -> int:
        """The share as KServe takes it."""
        return round(100 * self.canary_share)


def _check_name(field: str, value: str, longest: int, *, may_be_empty: bool = False) -> None:
    if (not value and may_be_empty) or (len(value) <= longest and _NAME.fullmatch(value)):
        return
    raise ConfigRejected(
        f"DeployConfig.{field}: expected at most {longest} small letters, digits and hyphens, "
        f"a letter first, got {value!r}"
    )
