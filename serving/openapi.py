"""The OpenAPI page, ``GET /openapi.json``: made from the models' forms, the limits and the kinds
of refusals that the server itself goes by.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.access import is_open_path
from serving.limits import ServingLimits
from serving.model import Form, ServedModel
from serving.openapi_schemas import (
    Schema,
    is_worth_retrying,
    object_of,
    refusal_schema,
    v1_answer,
    v1_request,
    v2_answer,
    v2_request,
)
from serving.refusals import STATUS_OF_KIND
from serving.request_id import HEADER
from serving.status import ENGINE_NAMES, REASONS

_ABOUT = """\
Songs for listeners, songs like a song, listeners for a song, and the latent factors of clips, over
KServe's inference protocols V1 and V2; gRPC takes the same tensors as V2. One wrong member refuses
the whole request, with one sentence and a kind that a program can act on."""
_SUMMARIES = {
    "latent-factors": "Latent factors, and the nearest songs.",
    "recommend": "Songs for listeners, and why.",
    "similar": "Songs like a song or a clip.",
    "listeners": "Listeners for a song or a clip.",
    "new-songs": "Take a new song, heard from its audio; it is recommended from the answer on.",
}
_EXAMPLES: dict[str, tuple[Schema, Schema]] = {
    # a member in V1, and parameters
    "latent-factors": ({"song_id": "SOAXGDH12A8C13F8A1"}, {"n_nearest": 2}),
    "recommend": ({"user_id": "user05"}, {"k": 2, "max_per_artist": 1}),
    "similar": ({"song_id": "SOAXGDH12A8C13F8A1"}, {"k": 2, "newer_than": 2020}),
    "listeners": ({"song_id": "SOAXGDH12A8C13F8A1"}, {"k": 2}),
    "new-songs": ({"song_id": "SONEW", "audio": "<base64>", "year": 2026}, {}),
}
_PREDICTION_STATUSES = (400, 408, 413, 415, 429, 500, 503, 504)


def page_of(
    models: Sequence[ServedModel], limits: ServingLimits, *, needs_key: bool
) -> dict[str, Any]:
    """Return the page about these models.

    Args:
        models: those that are served.
        limits: what their requests may ask.
        needs_key: whether callers must show one.
    """
    names = [model.name for model in models]
    page: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "needledrop", "version": "1", "description": _ABOUT},
        "paths": _paths_of_server(names),
        "components": {
            "responses": {
                f"refused_{status}": _refusal(status) for status in (*_PREDICTION_STATUSES, 401)
            }
        },
    }
    for model in models:
        page["paths"] |= _paths_of_model(model, limits)
    if needs_key:
        page["components"]["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        page["security"] = [{"key": []}, {"bearer": []}]
        for path, item in page["paths"].items():
            for method, operation in item.items():
                if is_open_path(method.upper(), path):
                    operation["security"] = []
                else:
                    operation["responses"]["401"] = _refused(401)
    return page


def _paths_of_model(model: ServedModel, limits: ServingLimits) -> dict[str, Any]:
    form: Form = model.form
    name = form.model
    member, parameters = _EXAMPLES[name]
    first = next(iter(model.get_input_types()))["name"]
    v2_example = {
        "inputs": [
            {"name": key, "datatype": "BYTES", "shape": [1], "data": [value]}
            for key, value in member.items()
            if isinstance(value, str)
        ]
        or [{"name": first, "datatype": "BYTES", "shape": [1], "data": [""]}],
        "parameters": parameters,
    }
    v1_schema = v1_request(form, limits)
    v2_schema = v2_request(form, limits, model.get_input_types())
    return {
        f"/v1/models/{name}:predict": {
            "post": _operation(
                _SUMMARIES[name],
                f"{name}_v1",
                v1_answer(form),
                body={
                    "application/json": {
                        "schema": v1_schema,
                        "example": {"instances": [member], "parameters": parameters},
                    }
                },
                refusals=_PREDICTION_STATUSES,
            )
        },
        f"/v2/models/{name}/infer": {
            "post": _operation(
                _SUMMARIES[name],
                f"{name}_v2",
                v2_answer(form, model.get_output_types()),
                body={
                    "application/json": {"schema": v2_schema, "example": v2_example},
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                },
                headers=[_N_JSON_BYTES],
                refusals=_PREDICTION_STATUSES,
                answers_bytes=True,
            )
        },
        f"/v1/models/{name}": {
            "get": _operation(
                "Whether the model can answer.", f"{name}_ready_v1", _ready(name), refusals=(503,)
            )
        },
        f"/v2/models/{name}": {
            "get": _operation("Its inputs and outputs.", f"{name}_metadata", _METADATA)
        },
        f"/v2/models/{name}/ready": {
            "get": _operation(
                "Whether the model can answer.", f"{name}_ready_v2", _ready(name), refusals=(503,)
            )
        },
    }


def _paths_of_server(names: list[str]) -> dict[str, Any]:
    model_names = object_of({"models": {"type": "array", "items": {"enum": names}}})
    return {
        "/v1/status": {
            "get": _operation("Whether all is well, and what is amiss.", "status", _status(names))
        },
        "/v1/models": {"get": _operation("The models' names.", "models_v1", model_names)},
        "/v2/models": {"get": _operation("The models' names.", "models_v2", model_names)},
        "/v2": {"get": _operation("The server's name.", "metadata", _SERVER_METADATA)},
        "/v2/health/live": {
            "get": _operation("Whether the process is up.", "live", object_of({"live": _TRUE}))
        },
        "/v2/health/ready": {
            "get": _operation(
                "Whether all models can answer.",
                "ready",
                object_of({"ready": _TRUE}),
                refusals=(503,),
            )
        },
    }


def _operation(
    summary: str,
    operation_id: str,
    answer: Schema,
    *,
    body: Mapping[str, Any] | None = None,
    headers: Sequence[Schema] = (),
    refusals: Sequence[int] = (),
    answers_bytes: bool = False,
) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": answer}}
    if answers_bytes:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    operation: dict[str, Any] = {
        "summary": summary,
        "operationId": operation_id.replace("-", "_"),
        "parameters": [_REQUEST_ID, *headers],
        "responses": {
            "200": {"description": "The answer.", "headers": _ANSWERED_ID, "content": content},
            **{str(status): _refused(status) for status in refusals},
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": dict(body)}
    return operation


def _refused(status: int) -> Schema:
    return {"$ref": f"#/components/responses/refused_{status}"}


def _refusal(status: int) -> Schema:
    kinds = [kind for kind, (of_kind, _) in STATUS_OF_KIND.items() if of_kind == status]
    headers = dict(_ANSWERED_ID)
    if is_worth_retrying(status):
        headers["Retry-After"] = {
            "description": "Seconds until it is worth asking again.",
            "schema": {"type": "integer", "minimum": 1},
        }
    return {
        "description": f"Refused: {', '.join(kinds)}.",
        "headers": headers,
        "content": {"application/json": {"schema": refusal_schema(status)}},
    }


_TRUE: Schema = {"const": True}
_TEXT: Schema = {"type": "string"}
_REQUEST_ID = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "The caller's id of the request; one that isn't 1 to 128 visible ASCII "
    "characters is replaced by a new one.",
    "schema": {"type": "string"},
}
_N_JSON_BYTES = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "description": "In the binary tensor data extension: the length of the body's JSON part.",
    "schema": {"type": "integer", "minimum": 0},
}
_ANSWERED_ID = {HEADER: {"description": "The request's id.", "schema": {"type": "string"}}}
_TENSORS: Schema = {
    "type": "array",
    "items": object_of(
        {
            "name": _TEXT,
            "datatype": _TEXT,
            "shape": {"type": "array", "items": {"type": "integer"}},
        }
    ),
}
_METADATA = object_of(
    {
        "name": _TEXT,
        "versions": {"type": "null"},
        "platform": _TEXT,
        "inputs": _TENSORS,
        "outputs": _TENSORS,
    }
)
_SERVER_METADATA = object_of(
    {"name": _TEXT, "version": _TEXT, "extensions": {"type": "array", "items": _TEXT}}
)


def _ready(name: str) -> Schema:
    return object_of({"name": {"const": name}, "ready": _TRUE})


def _status(names: list[str]) -> Schema:
    said = "; ".join(f"{reason}: {meaning}" for reason, meaning in REASONS.items())
    return object_of(
        {
            "ready": {"type": "boolean", "description": "Whether all models can answer."},
            "degraded": {"type": "array", "items": {"enum": list(REASONS)}, "description": said},
            "bundle": {"type": ["string", "null"]},
            "engine": {
                "enum": [*ENGINE_NAMES, None],
                "description": "What runs the network here; null without one.",
            },
            "n_songs": {"type": ["integer", "null"]},
            "n_listeners": {"type": ["integer", "null"]},
            "store_unseen_seconds": {"type": ["number", "null"], "minimum": 0},
            "stale": {"type": "boolean"},
            "models": {"type": "array", "items": {"enum": names}},
        }
    )
