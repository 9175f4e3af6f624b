"""What values look like in requests and answers, as JSON Schema, by the names that forms use.

A name that a form has and this module hasn't is an error at the start of the server, so the page
can't lag behind the models.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.asked import MOST_ID_CHARACTERS, NEW_ID, TEXT_CHARACTER
from serving.asking import NUMBER_AS_TEXT
from serving.limits import ServingLimits
from serving.model import Form
from serving.parameters import MOST_YEAR, REGION_CODES, Parameter, parameters_of
from serving.refusals import RETRY_AFTER_SECONDS, STATUS_OF_KIND
from serving.schema import MODEL_NAME

Schema = dict[str, Any]

_TEXT: Schema = {
    "type": "string",
    "maxLength": MOST_ID_CHARACTERS,
    "pattern": f"^{TEXT_CHARACTER}*$",
}
_SONG_ID: Schema = {**_TEXT, "examples": ["SOAXGDH12A8C13F8A1"]}
_FLAG: Schema = {"type": "boolean"}
_NUMBER: Schema = {"type": "number"}


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def object_of(properties: Mapping[str, Schema], optional: Sequence[str] = ()) -> Schema:
    """Return an object with these properties and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def field_schemas(limits: ServingLimits) -> dict[str, Schema]:
    """Return what each field of a member may be in V1."""
    return {
        "user_id": {**_TEXT, "description": "A listener.", "examples": ["user05"]},
        "liked": _list(
            _SONG_ID,
            maxItems=limits.max_liked,
            description="Songs that the listener likes; they speak for one who isn't known.",
        ),
        "song_id": {**_SONG_ID, "description": "A song."},
        "audio": {
            "type": "string",
            "contentEncoding": "base64",
            "description": "The bytes of an audio file (WAV, FLAC, MP3, Ogg, AAC, M4A) in base64.",
        },
        "log_mel": _list(
            _list(_NUMBER, minItems=1),
            minItems=1,
            description="Log-mel of the bundle's front end: t frames of as many mel bands.",
        ),
        "artist_id": {**_TEXT, "description": "Whose song it is, for max_per_artist."},
        "artist_name": {**_TEXT, "description": "To be shown."},
        "title": {**_TEXT, "description": "To be shown."},
        "year": {
            "type": "integer",
            "minimum": 0,
            "maximum": MOST_YEAR,
            "description": "Of its release, for newer_than; 0 where unknown.",
        },
        "available_from": {
            **_TEXT,
            "description": "From when it may appear, in ISO 8601; without a zone in UTC.",
            "examples": ["2026-05-01T00:00:00+00:00"],
        },
    }


def schema_of_parameter(parameter: Parameter) -> Schema:
    """Return a parameter as JSON Schema."""
    kinds: dict[str, Schema] = {
        "count": {"type": "integer", "minimum": parameter.least, "maximum": parameter.most},
        "flag": _FLAG,
        "share": {
            "oneOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": f"^({NUMBER_AS_TEXT})$"},
            ]
        },
        "region": {"type": "string", "enum": list(REGION_CODES)},
    }
    schema = kinds[parameter.kind]
    if parameter.default is None:
        schema = {**schema, "type": [schema["type"], "null"]}
    return {**schema, "default": parameter.default, "description": parameter.about}


def member_schema(form: Form, limits: ServingLimits) -> Schema:
    """Return what one instance of a V1 request may be."""
    known = field_schemas(limits)
    member = object_of({name: known[name] for name in form.fields}, optional=form.fields)
    del member["required"]
    clip = [{"required": ["audio"]}, {"required": ["log_mel"]}]
    if "available_from" in form.fields:
        ids = member["properties"]
        ids["song_id"] = {**ids["song_id"], "pattern": NEW_ID}
        ids["artist_id"] = {**ids["artist_id"], "pattern": f"^$|{NEW_ID}"}
        return {**member, "required": ["song_id"], "oneOf": clip}
    if "song_id" in form.fields:
        return {**member, "oneOf": [{"required": ["song_id"]}, *clip]}
    if "audio" in form.fields:
        return {**member, "oneOf": clip}
    return {**member, "minProperties": 1}


def parameters_schema(form: Form, limits: ServingLimits) -> Schema:
    """Return what the parameters of a request may be."""
    known = parameters_of(limits)
    by_name = {name: schema_of_parameter(known[name]) for name in form.parameters}
    if _is_network_alone(form):
        by_name["n_nearest"]["minimum"] = 1
    schema = object_of(by_name, optional=form.parameters)
    del schema["required"]
    return schema


def v1_request(form: Form, limits: ServingLimits) -> Schema:
    """Return what the body of a V1 request may be."""
    n_most = limits.max_clips if _is_network_alone(form) else limits.max_members
    instances = _list(member_schema(form, limits), minItems=1, maxItems=n_most)
    # V1 takes null for no parameters.
    parameters = {"anyOf": [parameters_schema(form, limits), {"type": "null"}]}
    return object_of({"instances": instances, "parameters": parameters}, optional=("parameters",))


_COMMON = {
    "bundle": {
        "type": "string",
        "pattern": "^[0-9a-f]{64}$",
        "description": "Fingerprint of the bundle whose factors the answer is made from.",
    },
    "stale": {
        **_FLAG,
        "description": "True while the store is away: the answer is of what was read last.",
    },
    "request_id": {"type": "string", "description": "The caller's, or a new one."},
}
_UNKNOWN = _list({"type": "string"}, description="Ids that were asked about and aren't known.")
_SCORED_SONG = object_of({"song_id": {"type": "string"}, "score": _NUMBER})
_FACTORS = _list(_NUMBER, minItems=1)


def _fallback(*kinds: str) -> Schema:
    return {
        "enum": [*kinds, None],
        "description": "What answered in place of what isn't known; null where all is known.",
    }


_BECAUSE = _list(object_of({"song_id": {"type": "string"}, "similarity": _NUMBER}))
_PREDICTIONS: dict[str, dict[str, Schema]] = {
    MODEL_NAME: {
        "factors": {"anyOf": [_FACTORS, {"type": "null"}]},
        "source": {"enum": ["usage", "audio", ""]},
        "nearest": _list(_SCORED_SONG),
        "fallback": _fallback("unknown_song"),
        "unknown": _UNKNOWN,
    },
    "recommend": {
        "songs": _list(
            object_of({"song_id": {"type": "string"}, "score": _NUMBER, "because": _BECAUSE})
        ),
        "fallback": _fallback("popularity", "liked_songs"),
        "unknown": _UNKNOWN,
    },
    "similar": {
        "songs": _list(_SCORED_SONG),
        "fallback": _fallback("unknown_song"),
        "unknown": _UNKNOWN,
    },
    "listeners": {
        "listeners": _list(object_of({"user_id": {"type": "string"}, "score": _NUMBER})),
        "fallback": _fallback("unknown_song"),
        "unknown": _UNKNOWN,
    },
    "new-songs": {
        "song_id": {"type": "string"},
        "added": {**_FLAG, "description": "False where the song was there already."},
        "factors": _FACTORS,
    },
}


def v1_answer(form: Form) -> Schema:
    """Return what the body of a V1 answer is."""
    if _is_network_alone(form):
        known = _PREDICTIONS[MODEL_NAME]
        prediction = {"factors": _FACTORS, "nearest": known["nearest"], "bundle": _COMMON["bundle"]}
    else:
        prediction = {**_PREDICTIONS[form.model], **_COMMON}
    return object_of({"predictions": _list(object_of(prediction), minItems=1)})


def v2_request(form: Form, limits: ServingLimits, inputs: Sequence[Mapping[str, Any]]) -> Schema:
    """Return what the JSON of a V2 request may be."""
    parameters = parameters_schema(form, limits)
    parameters["properties"]["binary_data_output"] = {**_FLAG, "default": False}
    asked_output = object_of(
        {
            "name": {"enum": list(form.outputs)},
            "parameters": object_of({"binary_data": _FLAG}, optional=("binary_data",)),
        },
        optional=("parameters",),
    )
    return object_of(
        {
            "id": {"type": ["string", "null"], "description": "The request's id, in the answer."},
            "inputs": _list(
                {"oneOf": [_tensor(one, of_request=True) for one in inputs]}, minItems=1
            ),
            "outputs": {"anyOf": [_list(asked_output), {"type": "null"}]},
            "parameters": {"anyOf": [parameters, {"type": "null"}]},
        },
        optional=("id", "outputs", "parameters"),
    )


def v2_answer(form: Form, outputs: Sequence[Mapping[str, Any]]) -> Schema:
    """Return what the JSON of a V2 answer is."""
    common = {name: schema for name, schema in _COMMON.items() if name != "request_id"}
    if _is_network_alone(form):
        del common["stale"]
    return object_of(
        {
            "model_name": {"const": form.model},
            "model_version": {"type": "null"},
            "id": {"type": "string"},
            "parameters": object_of(common),
            "outputs": _list({"oneOf": [_tensor(one, of_request=False) for one in outputs]}),
        }
    )


def _is_network_alone(form: Form) -> bool:
    """Whether there is no store beside the network: it knows no song by its id."""
    return form.model == MODEL_NAME and "song_id" not in form.fields


_ELEMENTS: dict[str, Schema] = {
    "BYTES": {"type": "string"},
    "FP32": _NUMBER,
    "INT32": {"type": "integer"},
}
_OTHER_TYPES = {"log_mel": ["FP32", "FP16"], "year": ["INT32", "INT64"]}


def _tensor(described: Mapping[str, Any], *, of_request: bool) -> Schema:
    name, datatype, n_axes = described["name"], described["datatype"], len(described["shape"])
    shape = _list({"type": "integer", "minimum": 0}, minItems=n_axes, maxItems=n_axes)
    if not of_request:
        properties = {
            "name": {"const": name},
            "datatype": {"const": datatype},
            "shape": shape,
            "parameters": {"type": ["object", "null"]},
            "data": _list(_ELEMENTS[datatype]),
        }
        return object_of(properties, optional=("data",))  # as bytes behind the JSON
    data = {"type": "array", "description": "Flat, or nested as the shape says."}
    properties = {
        "name": {"const": name},
        "datatype": {"enum": _OTHER_TYPES.get(name, [datatype])},
        "shape": shape,
        "data": data,
        "parameters": object_of({"binary_data_size": {"type": "integer", "minimum": 0}}),
    }
    tensor = object_of(properties, optional=("data", "parameters"))
    return {**tensor, "oneOf": [{"required": ["data"]}, {"required": ["parameters"]}]}


def refusal_schema(status: int) -> Schema:
    """Return what a refusal with a status says."""
    kinds = [kind for kind, (of_kind, _) in STATUS_OF_KIND.items() if of_kind == status]
    return object_of(
        {"error": {"type": "string", "minLength": 1}, "kind": {"type": "string", "enum": kinds}}
    )


def is_worth_retrying(status: int) -> bool:
    """Whether answers with a status say when to ask again."""
    return any(STATUS_OF_KIND[kind][0] == status for kind in RETRY_AFTER_SECONDS)
