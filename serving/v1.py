"""The inference protocol V1: JSON in, JSON out."""

from typing import Any

from serving.limits import ServingLimits
from serving.refusals import Refused
from serving.schema import (
    Answer,
    Clip,
    Question,
    bytes_from_base64,
    check_n_clips,
    checked_n_nearest,
    checked_object,
    checked_parameters,
    floats_from_lists,
    kind_of,
    parsed_json,
)


def question_from_v1(body: bytes, limits: ServingLimits) -> Question:
    """Read ``{"instances": [{"audio": base64} | {"log_mel": [[...]]}], "parameters"?: {...}}``.

    Raises:
        Refused: with the place of what is wrong. One wrong instance refuses the whole request.
    """
    request = checked_object(parsed_json(body), "the request", ("instances", "parameters"))
    instances = request.get("instances")
    if not isinstance(instances, list):
        raise Refused("malformed", f"instances: expected a list, got {kind_of(instances)}")
    check_n_clips(len(instances), "instances", limits)
    return Question(
        clips=tuple(
            _clip_from_instance(instance, f"instances[{index}]")
            for index, instance in enumerate(instances)
        ),
        n_nearest=checked_n_nearest(checked_parameters(request, ("n_nearest",)), limits),
        say=_response,
    )


def _clip_from_instance(value: Any, place: str) -> Clip:
    instance = checked_object(value, place, ("audio", "log_mel"))
    if len(instance) != 1:
        raise Refused(
            "malformed", f"{place}: expected either audio or log_mel, got {len(instance)} of them"
        )
    if "audio" in instance:
        place = f"{place}.audio"
        return Clip(place, bytes_from_base64(instance["audio"], place))
    place = f"{place}.log_mel"
    return Clip(place, floats_from_lists(instance["log_mel"], place))


def _response(answer: Answer) -> dict[str, Any]:
    return {
        "predictions": [
            {
                "factors": factors.tolist(),
                "nearest": [
                    {"song_id": song_id, "score": score}
                    for song_id, score in zip(song_ids.tolist(), scores.tolist(), strict=True)
                ],
                "bundle": answer.bundle,
            }
            for factors, song_ids, scores in zip(
                answer.factors, answer.song_ids, answer.scores, strict=True
            )
        ]
    }
