"""The API of one Kubeflow Pipelines: who asks, what is asked again, and what an answer must be.

Questions (GET, and acts that may be repeated) are asked again after 429, 502, 503, 504 and after a
connection that was cut, with growing pauses of random length. A thing is created at most once:
after an answer that didn't come it is looked for before it is made again. docs/adr/0007 says why
this isn't kfp.Client.
"""

import ssl
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp_server_api
import urllib3
from kfp_server_api.exceptions import ApiException

from needledrop.errors import ConfigRejected
from pipelines.submitting.patience import Answer, NoAnswer, persist
from pipelines.submitting.refusals import Request
from pipelines.submitting.token import TokenSource

_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 60.0
_FIRST_CONTACT_SECONDS = 10.0  # a wrong host should not take a run's patience to find out


class Connection:
    """One cluster's API.

    Attributes:
        host: without a slash at its end.
        namespace: of runs and schedules; empty where the cluster has one user.
        ui: where people look at runs.
        runs, recurring_runs, pipelines, uploads, experiments: the API's parts.
    """

    def __init__(
        self,
        host: str,
        *,
        token: TokenSource,
        namespace: str = "",
        ui: str | None = None,
        ca_cert: Path | None = None,
        patience_seconds: float = 300.0,
    ) -> None:
        self.host = _checked_host(host, "--host")
        self.namespace = namespace
        self.ui = _checked_host(ui, "--ui-host") if ui else self.host
        self._token = token
        self._patience_seconds = patience_seconds
        api = kfp_server_api.ApiClient(self._configuration(ca_cert))
        self._api = api
        self._health = kfp_server_api.HealthzServiceApi(api)
        self.runs = kfp_server_api.RunServiceApi(api)
        self.recurring_runs = kfp_server_api.RecurringRunServiceApi(api)
        self.pipelines = kfp_server_api.PipelineServiceApi(api)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(api)
        self.experiments = kfp_server_api.ExperimentServiceApi(api)

    def open(self) -> None:
        """Ask whether the API is there, and whether it has namespaces.

        Raises:
            ConfigRejected: the cluster has many users and no namespace was given.
        """
        health = self.ask(
            self._health.healthz_service_get_healthz,
            what="reach the API",
            patience_seconds=min(self._patience_seconds, _FIRST_CONTACT_SECONDS),
        )
        if not health.multi_user:
            self.namespace = ""  # such a cluster refuses requests that name one
        elif not self.namespace:
            raise ConfigRejected(
                f"expected --namespace NAME: {self.host} keeps the runs of several users apart"
            )

    @property
    def in_namespace(self) -> dict[str, Any]:
        """What lists are narrowed by; nothing on a cluster of one user."""
        return {"namespace": self.namespace} if self.namespace else {}

    def run_url(self, run_id: str) -> str:
        """Return the address of a run's page."""
        return f"{self.ui}/#/runs/details/{run_id}"

    def read_log(self, run_id: str, pod: str) -> str:
        """Return what a pod of a run printed; nothing where it can't be had (it may be gone)."""
        try:
            answer = self._api.call_api(
                "/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log",
                "GET",
                {"run_id": run_id, "pod": pod},
                response_type="str",
                auth_settings=["Bearer"],
                _return_http_data_only=True,
                _request_timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
            )
        except (ApiException, urllib3.exceptions.HTTPError, ValueError, AttributeError):
            return ""
        return str(answer)

    def ask(
        self,
        question: Callable[..., Answer],
        *arguments: Any,
        what: str,
        patience_seconds: float | None = None,
        goes_on: str = "",
        **more: Any,
    ) -> Answer:
        """Ask, again if need be, what may be asked twice.

        Args:
            question: a method of one of the API's parts.
            *arguments: of the method.
            what: is asked for, for messages: "read the run".
            patience_seconds: to go on for; the connection's own where it is None.
            goes_on: page of the run that goes on whatever is answered, for messages.
            **more: arguments of the method.

        Raises:
            ClusterRefused: the answer is no.
            ClusterUnreachable: no whole answer came.
        """
        request = Request(what, self.host, self.namespace, self._token.origin, goes_on)
        return self._persist(question, arguments, more, lambda: None, request, "", patience_seconds)

    def create(
        self,
        make: Callable[..., Answer],
        *arguments: Any,
        find: Callable[[], Answer | None],
        what: str,
        named_by: str,
        **more: Any,
    ) -> Answer:
        """Create one thing, and one only: look for it before trying again.

        Args:
            make: a method of one of the API's parts.
            *arguments: of the method.
            find: returns the thing where the lost request made it after all.
            what: is done, for messages.
            named_by: attribute of the answer that holds its id.
            **more: arguments of the method.

        Raises:
            ClusterRefused: the answer is no.
            ClusterUnreachable: no whole answer came; the thing may exist.
        """
        request = Request(what, self.host, self.namespace, self._token.origin)
        return self._persist(make, arguments, more, find, request, named_by, None)

    def _persist(
        self,
        method: Callable[..., Answer],
        arguments: tuple[Any, ...],
        more: dict[str, Any],
        find: Callable[[], Answer | None],
        request: Request,
        named_by: str,
        patience_seconds: float | None,
    ) -> Answer:
        patience = self._patience_seconds if patience_seconds is None else patience_seconds
        timeout = (_CONNECT_SECONDS, min(_ANSWER_SECONDS, max(1.0, patience)))

        def attempt() -> Answer:
            self._api.last_response = None
            try:
                answer = method(*arguments, _request_timeout=timeout, **more)
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                raise request.trouble(error) from None
            except (ValueError, TypeError, AttributeError) as error:
                request.check(self._api.last_response)
                raise request.trouble(error) from None
            request.check(self._api.last_response)
            if answer is None or (named_by and not getattr(answer, named_by, None)):
                raise request.without(named_by or "content")
            return answer

        def tell(trouble: NoAnswer) -> None:
            print(
                f"{self.host}: {trouble}; asking again for up to {patience:.0f} s to "
                f"{request.what}",
                file=sys.stderr,
                flush=True,
            )

        try:
            return persist(attempt, find, patience, tell)
        except NoAnswer as last:
            raise request.unreachable(last, patience) from None

    def _configuration(self, ca_cert: Path | None) -> kfp_server_api.Configuration:
        if ca_cert is not None:
            _check_certificates(ca_cert)
        configuration = kfp_server_api.Configuration(host=self.host)
        configuration.ssl_ca_cert = str(ca_cert) if ca_cert else None
        # urllib3 would wait for as long as Retry-After says, and follow to login pages.
        configuration.retries = urllib3.Retry(
            total=0, redirect=0, respect_retry_after_header=False, raise_on_redirect=False
        )
        address = urlsplit(self.host)
        if not urllib.request.proxy_bypass(address.hostname or ""):
            configuration.proxy = urllib.request.getproxies().get(address.scheme)
        if self._token.read():

            def renew(configuration: kfp_server_api.Configuration) -> None:
                configuration.api_key["authorization"] = self._token.read()

            configuration.api_key["authorization"] = "read at each request"
            configuration.api_key_prefix["authorization"] = "Bearer"
            configuration.refresh_api_key_hook = renew
        return configuration


def _check_certificates(path: Path) -> None:
    try:
        ssl.create_default_context(cafile=str(path))
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or "" if not isinstance(error, ssl.SSLError) else "none in it"
        raise ConfigRejected(
            f"--ca-cert {path}: expected a file of certificates (PEM), got: {reason}"
        ) from None


def _checked_host(host: str, option: str) -> str:
    try:
        address = urlsplit(host)
        usable = address.scheme in ("http", "https") and bool(address.hostname)
        secret = "@" in address.netloc
        _ = address.port
    except ValueError:
        usable, secret = False, "@" in host
    if secret:
        raise ConfigRejected(
            f"{option}: expected an address without a name or password in it; give a token with "
            "--token-file"
        )
    if not usable or address.query or address.fragment:
        raise ConfigRejected(
            f"{option} {host}: expected an address such as https://kubeflow.example.org/pipeline"
        )
    return host.rstrip("/")
