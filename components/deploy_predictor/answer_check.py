"""Asks a predictor about one clip, over HTTP V2, and judges its answer.

The clip is a canned one (:mod:`needledrop.audio.canned`), so that a check needs no data.
"""

import base64
import http.client
import json
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import numpy as np

MODEL_NAME = "latent-factors"
_PATH = f"/v2/models/{MODEL_NAME}/infer"
_LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class Fault:
    """What is wrong with a predictor's answer.

    Attributes:
        reason: in words.
        kind: "no_answer" may pass, where a Service has just been made; "other_bundle" may pass,
            while old pods still answer beside new ones; "wrong" stays wrong.
    """

    reason: str
    kind: Literal["no_answer", "other_bundle", "wrong"]


def fault_in_answer(
    url: str, clip: bytes, *, fingerprint: str, n_factors: int, timeout_seconds: float
) -> Fault | None:
    """Ask the predictor at ``url`` about a clip; return what is wrong, None where nothing is.

    Args:
        url: such as ``http://needledrop-predictor.music.svc.cluster.local``.
        clip: an audio file.
        fingerprint: of the bundle that must have answered.
        n_factors: k, how many finite numbers the answer must have.
        timeout_seconds: to connect, and between two pieces of the answer.
    """
    try:
        status, body = _asked(url, clip, timeout_seconds)
    except (OSError, http.client.HTTPException) as error:
        return Fault(f"{url} does not answer ({type(error).__name__}: {error})", "no_answer")
    if status != 200:
        text = " ".join(body.decode(errors="replace").split())[:_LONGEST_MESSAGE]
        return Fault(
            f"{url} answers {status}: {text}",
            "no_answer" if status in (502, 503, 504) else "wrong",
        )
    try:
        answer = json.loads(body)
        bundle = answer["parameters"]["bundle"]
        [factors] = [one for one in answer["outputs"] if one["name"] == "factors"]
        values = np.array(factors["data"], dtype=np.float64)
    except (ValueError, KeyError, TypeError):
        return Fault(f"{url} answers something that is no V2 answer of needledrop", "wrong")
    if bundle != fingerprint:
        got = f"bundle {str(bundle)[:16]}"
        return Fault(
            f"expected bundle {fingerprint[:16]} to answer at {url}, got {got}", "other_bundle"
        )
    if values.shape != (n_factors,) or not np.isfinite(values).all():
        n_finite = int(np.isfinite(values).sum())
        return Fault(
            f"expected {n_factors} finite factors from {url}, got {n_finite} of {values.size}",
            "wrong",
        )
    return None


def _asked(url: str, clip: bytes, timeout_seconds: float) -> tuple[int, bytes]:
    address = urlsplit(url)
    is_https = address.scheme == "https"
    kind = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
    audio = {
        "name": "audio",
        "datatype": "BYTES",
        "shape": [1],
        "data": [base64.b64encode(clip).decode()],
    }
    question = json.dumps({"inputs": [audio], "outputs": [{"name": "factors"}]})
    connection = kind(address.hostname or "", address.port, timeout=timeout_seconds)
    try:
        connection.request("POST", _PATH, question, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
