"""What a cluster answers when it won't, in one sentence each; never with a token in it."""

import json
from typing import Any

from needledrop.errors import NeedledropError

_MOST_WORDS = 300  # characters of a server's own message


class ClusterRefused(NeedledropError):
    """The cluster understood and refused.

    Attributes:
        status: of its HTTP answer; 0 where there was none.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ClusterUnreachable(NeedledropError):
    """No whole answer came, for longer than the caller has patience."""


class NotTheApi(ClusterRefused):
    """Something else answered in the API's place: a login page, or the user interface."""

    def __init__(self, host: str, got: str) -> None:
        super().__init__(
            0,
            f"{host}: expected the API of Kubeflow Pipelines, got {got}; give a token "
            "(--token-file), or a --host under which /apis/v2beta1/healthz answers",
        )


def refusal(status: int, body: Any, *, what: str, asked: str, token_from: str) -> ClusterRefused:
    """Make the error for a status that isn't worth another try.

    Args:
        status: of the HTTP answer.
        body: of the answer; its own message is quoted where there is one.
        what: was asked for, as in "start a run".
        asked: host and namespace.
        token_from: where the token came from.
    """
    said = _message_of(body)
    sentences = {
        401: f"{asked}: expected the token ({token_from}) to be accepted, got 401 (absent, expired "
        "or of another audience); give a fresh one with --token-file or NEEDLEDROP_KFP_TOKEN",
        403: f"{asked}: expected that the token ({token_from}) may {what}, got 403{said}; have its "
        "owner made a contributor of the namespace, or give another --namespace",
        404: f"{asked}: expected to {what}, got 404{said}; check --host and --namespace, or, if "
        "someone deleted what is asked for, run the same command again",
    }
    sentence = sentences.get(
        status, f"{asked}: expected to {what}, got {status}{said}; mend that and run again"
    )
    return ClusterRefused(status, sentence)


def _message_of(body: Any) -> str:
    """Quote the message of a gRPC gateway's answer; nothing of anything else."""
    try:
        content = json.loads(body)
        message = content.get("message") or content.get("error_message") or content["error"]
    except (TypeError, ValueError, KeyError, AttributeError):
        return ""
    line = " ".join(str(message).split())
    return f" ({line[:_MOST_WORDS]}{'…' if len(line) > _MOST_WORDS else ''})" if line else ""
