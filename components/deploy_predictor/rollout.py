"""Rolls a version out on a cluster: a canary first, then for everyone, and back where it fails."""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy

from components.deploy_predictor.answer_check import fault_in_answer
from components.deploy_predictor.cluster import Cluster
from components.deploy_predictor.config import STANDARD, DeployConfig
from components.deploy_predictor.inference_service import (
    Json,
    Release,
    canary_percent,
    canary_url,
    mode_of,
    new_service,
    promoted,
    restored,
    served_at_once,
    stable_url,
    with_canary,
    without_canary,
)
from components.deploy_predictor.readiness import (
    is_serving,
    pods_of_another,
    reason_from_pods,
    reason_not_ready,
)
from needledrop.errors import DeployFailed

_N_SETTLED = 3
"""Right answers in a row; which pods there are may not be known, where they may not be listed."""
_LEAVE, _MAKE, _CHANGE = "leave", "make", "change"


class Rollout:
    """Brings one version to one InferenceService.

    The steps are :meth:`try_candidate`, then :meth:`promote`; :meth:`undo` after either takes back
    what this object did. Each may be repeated: where the cluster is already as wanted, nothing is
    written.

    Args:
        cluster: where.
        release: what.
        clip: an audio file that the check asks about.
        config: how.
        say: takes lines for people.
    """

    def __init__(
        self,
        cluster: Cluster,
        release: Release,
        clip: bytes,
        config: DeployConfig,
        say: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._release = release
        self.version = release.version
        self._clip = clip
        self._config = config
        self.say = say
        self._before: Json | None = None
        self._plan = ""
        self._done = _LEAVE
        self._where = f"InferenceService {cluster.name} in {cluster.namespace}"

    def try_candidate(self) -> None:
        """Give the version a share of the traffic (all, where nothing serves yet), and check it.

        Raises:
            DeployFailed: it is not ready in time, or its answer is wrong; it was taken away again.
        """
        try:
            written = self._cluster.change(self._first_change)
            self._done = self._plan
            service = self._wait_until_ready(written)
            if self._release.is_canary_of(service):
                self._check_canary(service)
            else:
                self._wait_until_settled(service)
        except Exception as failure:
            self.undo(failure)
            raise

    def promote(self) -> None:
        """Make the checked canary the stable predictor.

        Raises:
            DeployFailed: it is not ready in time; :meth:`undo` was not called.
        """
        written = self._cluster.change(self._promotion)
        self._wait_until_settled(self._wait_until_ready(written))
        self.say(f"{self._where} serves {self._release.version}")

    def undo(self, failure: Exception) -> None:
        """Take back what was written: the version that served before serves alone again.

        Raises:
            DeployFailed: the cluster doesn't let it; the message says so after the first failure.
        """
        if self._done == _LEAVE:
            return
        try:
            if self._done == _MAKE:
                self._cluster.delete()
            else:
                self._cluster.change(self._restoration)
        except DeployFailed as error:
            raise DeployFailed(
                f"{failure}; and {self._where} could not be put back ({error}), so version "
                f"{self._release.version} may still get traffic: see docs/kubeflow.md"
            ) from error
        self.say(f"{self._where} was put back: {self._release.version} gets no traffic")

    def _first_change(self, present: Json | None) -> Json | None:
        if present and self._plan and self._is_ours(present):
            return None  # an earlier attempt arrived, and only its answer was lost
        self._before, self._plan = deepcopy(present), _MAKE if present is None else _CHANGE
        if present is None:
            self.say(f"{self._where} is made, for the first version")
            return new_service(self._release, self._config, self._cluster.namespace)
        if mode_of(present) != self._config.deployment_mode:
            raise DeployFailed(
                f"expected {self._where} to be in {self._config.deployment_mode} mode, it is in "
                f"{mode_of(present)} mode, which KServe never changes; set deployment_mode, or "
                "give another predictor_name"
            )
        if self._release.is_canary_of(present):
            return None
        if self._release.is_served_by(present):
            self._plan = _LEAVE
            return without_canary() if present["spec"].get("canary") else None
        if not is_serving(present):
            self.say(f"{self._where} serves nothing now: it gets {self.version} at once")
            return served_at_once(self._release, self._config)
        share = canary_percent(present, self._config)
        how = f"with {share}% of the traffic" if share else "beside it, without traffic"
        self.say(f"{self._where}: {self._release.version} is tried {how}")
        return with_canary(self._release, self._config, present)

    def _promotion(self, present: Json | None) -> Json | None:
        if present is None:
            raise DeployFailed(f"{self._where} was deleted meanwhile; run the step again")
        is_canary = self._release.is_canary_of(present)
        if not self._is_ours(present):
            raise DeployFailed(
                f"the canary of {self._where} was taken away meanwhile, by another run or by hand; "
                "run the step again"
            )
        return promoted(self._release, self._config) if is_canary else None

    def _restoration(self, present: Json | None) -> Json | None:
        """Restore what was before, unless somebody else has put yet another version there."""
        if present is None or self._before is None:
            return None
        return restored(self._before, present) if self._is_ours(present) else None

    def _is_ours(self, service: Json) -> bool:
        return self._release.is_canary_of(service) or self._release.is_served_by(service)

    def _wait_until_ready(self, service: Json | None) -> Json:
        generation = int(service["metadata"]["generation"]) if service else 0
        deadline = time.monotonic() + self._config.deploy_timeout_seconds
        while True:
            if service is None:
                raise DeployFailed(f"{self._where} was deleted meanwhile; run the step again")
            is_canary = self._release.is_canary_of(service)
            if not self._is_ours(service):
                raise DeployFailed(
                    f"{self._where} was changed meanwhile, by another run or by hand, and no "
                    f"longer names {self._release.version}; run the step again"
                )
            named = is_canary and mode_of(service) == STANDARD
            canary = self._release.canary_name if named else None
            reason = reason_not_ready(service, generation, canary)
            if not reason:
                return service
            if time.monotonic() > deadline:
                raise self._too_late(f"-{canary}" if canary else "", reason)
            time.sleep(self._config.poll_seconds)
            service = self._cluster.read()

    def _too_late(self, suffix: str, reason: str) -> DeployFailed:
        pods = reason_from_pods(self._cluster.pods(), f"{self._cluster.name}{suffix}-predictor")
        return DeployFailed(
            f"expected version {self._release.version} to be ready in {self._where} within "
            f"{self._config.deploy_timeout_seconds} s, got: {pods or reason}; see "
            "docs/kubeflow.md, 'When a deployment fails'"
        )

    def _check_canary(self, service: Json) -> None:
        url = canary_url(service, self._cluster.namespace, self._release)
        if url is None:
            raise DeployFailed(
                f"Knative gave the newest revision of {self._where} no address of its own, so it "
                "can't be checked; allow tag routing in KServe's configuration"
            )
        self._ask_until(url, ("no_answer",), 1)
        self.say(f"the canary answered as {self._release.fingerprint[:16]}, with finite factors")

    def _wait_until_settled(self, service: Json) -> None:
        """Wait until every pod is the new one's: Ready holds while old pods still answer, too."""
        url = stable_url(service, self._cluster.namespace)
        self._ask_until(url, ("no_answer", "other_bundle"), _N_SETTLED)
        deadline = time.monotonic() + self._config.deploy_timeout_seconds
        name = f"{self._cluster.name}-predictor"
        while mode_of(service) == STANDARD and (
            old := pods_of_another(self._cluster.pods(), name, self.version)
        ):
            if time.monotonic() > deadline:
                raise DeployFailed(
                    f"expected every pod of {self._where} to serve {self.version} within "
                    f"{self._config.deploy_timeout_seconds} s, got an older one: {old[0]}"
                )
            time.sleep(self._config.poll_seconds)

    def _ask_until(self, url: str, may_pass: Sequence[str], n_right: int) -> None:
        """Ask until so many answers in a row are right.

        Raises:
            DeployFailed: a fault that won't pass, or time is up.
        """
        deadline = time.monotonic() + self._config.deploy_timeout_seconds
        n_seen = 0
        while n_seen < n_right:
            fault = fault_in_answer(
                url,
                self._clip,
                fingerprint=self._release.fingerprint,
                n_factors=self._release.n_factors,
                timeout_seconds=self._config.ask_seconds,
            )
            n_seen = 0 if fault else n_seen + 1
            if fault and (fault.kind not in may_pass or time.monotonic() > deadline):
                raise DeployFailed(
                    f"version {self._release.version} failed its check in {self._where}: "
                    f"{fault.reason}"
                )
            if fault:
                time.sleep(self._config.poll_seconds)
