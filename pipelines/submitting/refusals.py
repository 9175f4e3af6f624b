"""What a cluster answers when it won't, in one sentence each; never with a token in it."""

import json
from dataclasses import dataclass
from typing import Any

import urllib3
from kfp_server_api.exceptions import ApiException

from needledrop.errors import ConfigRejected, NeedledropError
from pipelines.submitting.patience import NoAnswer, pause_from

_ASK_AGAIN = (429, 502, 503, 504)
_LONGEST_QUOTE = 300  # characters of a server's own message
_NETWORK = {
    "NewConnectionError": "no connection",
    "NameResolutionError": "a host name that nobody knows",
    "ConnectTimeoutError": "no connection in time",
    "ReadTimeoutError": "no answer in time",
    "ProtocolError": "a connection that was cut",
    "ProxyError": "no connection through the proxy",
}


class ClusterRefused(NeedledropError):
    """The cluster understood and refused, or something that isn't the API answered.

    Attributes:
        status: of its HTTP answer; 0 where there was none.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ClusterUnreachable(NeedledropError):
    """No whole answer came, for longer than the caller has patience."""


@dataclass(frozen=True)
class Request:
    """What messages say of a request.

    Attributes:
        what: was asked for, as in "start a run".
        host: that was asked.
        namespace: empty on a cluster of one user.
        token_from: where the token came from.
        goes_on: page of the run that goes on whatever is answered; empty where there is none.
    """

    what: str
    host: str
    namespace: str
    token_from: str
    goes_on: str = ""

    def trouble(self, error: Exception) -> Exception:
        """Return what to raise for an error of the API's client: NoAnswer, or a refusal."""
        if isinstance(error, ApiException):
            return self._trouble_of_status(error)
        if isinstance(error, urllib3.exceptions.HTTPError):
            return self._trouble_of_network(error)
        return self._wrong_form(type(error).__name__)

    def check(self, response: Any) -> None:
        """Refuse what the API's client takes for an empty answer.

        Raises:
            ClusterRefused: a page of the web.
            NoAnswer: an answer that was cut off.
        """
        text = str(response.data).lstrip() if response else ""
        if text.startswith("<"):
            raise self._not_the_api("a web page")
        try:
            json.loads(text or "{}")
        except ValueError:
            raise NoAnswer("an answer that was cut off") from None

    def without(self, missing: str) -> ClusterRefused:
        """Return the error for an answer that lacks what it is asked for."""
        return self._wrong_form(f"it has no {missing}")

    def unreachable(self, last: NoAnswer, patience_seconds: float) -> ClusterUnreachable:
        """Return the error for the end of patience."""
        return ClusterUnreachable(
            f"{self.host}: expected to {self.what}, got {last}; tried for "
            f"{patience_seconds:.0f} s; "
            + self._advice("when it answers again, run the same command")
        )

    def _advice(self, usual: str) -> str:
        """Advise; but nobody to start a second run beside one that is at work."""
        return f"the run may go on: {self.goes_on}" if self.goes_on else usual

    def _trouble_of_status(self, error: ApiException) -> Exception:
        status = error.status or 0
        if status == 0:  # the client's own errors: of TLS, or in reading an answer
            reason = str(error.reason)
            tls = reason.startswith("SSLError")
            return self._untrusted(reason) if tls else self._wrong_form(reason)
        if status in _ASK_AGAIN:
            return NoAnswer(
                f"status {status}", pause_from((error.headers or {}).get("Retry-After"))
            )
        if status == 500 and self.goes_on:
            # Kubeflow's word for what its database has for a moment: no reason to lose a run.
            return NoAnswer(f"status 500{_message_of(error.body)}")
        if 300 <= status < 400:
            return self._not_the_api("a redirection, most likely to a login page")
        asked = f"{self.host}, namespace {self.namespace}" if self.namespace else self.host
        said = _message_of(error.body)
        got = f"expected to {self.what}, got {status}{said}"
        told = {
            401: (
                f"expected the token ({self.token_from}) to be accepted, got 401 (absent, expired "
                "or of another audience)",
                "give a fresh one with --token-file or NEEDLEDROP_KFP_TOKEN",
            ),
            403: (
                f"expected that the token ({self.token_from}) may {self.what}, got 403{said}",
                "have its owner made a contributor of the namespace, or give another --namespace",
            ),
            404: (
                got,
                "check --host and --namespace, or, if someone deleted what is asked for, run the "
                "same command again",
            ),
        }
        sentence, advice = told.get(status, (got, "mend that and run again"))
        return ClusterRefused(status, f"{asked}: {sentence}; {self._advice(advice)}")

    def _trouble_of_network(self, error: urllib3.exceptions.HTTPError) -> Exception:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, urllib3.exceptions.SSLError):
            return self._untrusted(str(reason))
        if isinstance(reason, urllib3.exceptions.LocationParseError):
            return ConfigRejected(f"--host {self.host}: expected an address of the web")
        return NoAnswer(_NETWORK.get(type(reason).__name__, type(reason).__name__))

    def _untrusted(self, reason: str) -> ClusterRefused:
        if "WRONG_VERSION_NUMBER" in reason:
            return ClusterRefused(
                0,
                f"{self.host}: expected a server that speaks TLS, got one that doesn't at this "
                "port; give its address with http://, or another port",
            )
        return ClusterRefused(
            0,
            f"{self.host}: expected a certificate that can be trusted, got: "
            f"{' '.join(reason.split())[:_LONGEST_QUOTE]}; give the authority's certificate with "
            "--ca-cert",
        )

    def _wrong_form(self, why: str) -> ClusterRefused:
        return ClusterRefused(
            0,
            f"{self.host}: expected to {self.what}, got an answer that isn't in the API's form "
            f"({why}); {self._advice('is it a Kubeflow Pipelines 2?')}",
        )

    def _not_the_api(self, got: str) -> ClusterRefused:
        return ClusterRefused(
            0,
            f"{self.host}: expected the API of Kubeflow Pipelines, got {got}; "
            + self._advice(
                "give a token (--token-file), or a --host under which /apis/v2beta1/healthz answers"
            ),
        )


def _message_of(body: Any) -> str:
    """Quote the message of a gRPC gateway's answer; nothing of anything else."""
    try:
        content = json.loads(body)
        message = content.get("message") or content.get("error_message") or content["error"]
    except (TypeError, ValueError, KeyError, AttributeError):
        return ""
    line = " ".join(str(message).split())
    return f" ({line[:_LONGEST_QUOTE]}{'…' if len(line) > _LONGEST_QUOTE else ''})" if line else ""
