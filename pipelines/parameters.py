"""A pipeline's parameters: checked before anything starts, whatever they come from.

The pipeline function's signature is the one list of names, types and defaults, for the form in the
Kubeflow UI and for ``--set`` alike. Ranges are the library's own: each parameter names the
configuration that it ends up in, and that configuration is built once, here, to see whether it
accepts the value.
"""

import dataclasses
import difflib
import json
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from needledrop.errors import ConfigRejected


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a pipeline: its type, its default, and what it means."""

    name: str
    kind: type
    default: Any
    description: str


class _Loader(yaml.SafeLoader):
    """Takes a key once, where PyYAML takes its last value; and 1e-3 for a number, as YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f"each key once, got {twice[0]} twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parameters_of(pipeline: Any) -> dict[str, Parameter]:
    """Read a KFP pipeline's parameters from its component specification."""
    kinds: dict[str, type] = {
        "String": str,
        "Integer": int,
        "Double": float,
        "Float": float,
        "Boolean": bool,
        "List": list,
        "Dict": dict,
    }
    return {
        name: Parameter(name, kinds[spec.type], spec.default, spec.description or "")
        for name, spec in pipeline.component_spec.inputs.items()
    }


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML file of parameters.

    Raises:
        ConfigRejected: it can't be read, or is no mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  (a safe one)
    except OSError as error:
        raise ConfigRejected(f"--config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigRejected(f"--config {path}: expected YAML, got {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigRejected(
            f"--config {path}: expected lines such as 'n_factors: 50', "
            f"got a {type(content).__name__}"
        )
    return {str(name): value for name, value in content.items()}


def parsed_settings(settings: Sequence[str], known: Mapping[str, Parameter]) -> dict[str, Any]:
    """Parse ``key=value`` texts by the type of each key.

    Raises:
        ConfigRejected: no key=value, an unknown key (with the nearest known one), a wrong type.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not sign:
            raise ConfigRejected(f"--set {setting}: expected key=value, such as n_factors=50")
        parameter = _known(name.strip(), known)
        values[parameter.name] = _parsed(text.strip(), parameter)
    return values


def checked(values: Mapping[str, Any], known: Mapping[str, Parameter]) -> dict[str, Any]:
    """Check names, types and ranges of given values; return them by their exact types.

    Raises:
        ConfigRejected: naming the key, what was expected and what came.
    """
    typed = {name: _typed(value, _known(name, known)) for name, value in values.items()}
    from pipelines.destinations import build_configurations  # imports torch: after the names

    build_configurations(typed)
    return typed


def _known(name: str, known: Mapping[str, Parameter]) -> Parameter:
    if name in known:
        return known[name]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    raise ConfigRejected(f"unknown parameter {name!r}; did you mean {nearest[0]!r}?")


def _parsed(text: str, parameter: Parameter) -> Any:
    readers: Mapping[type, Callable[[str], Any]] = types.MappingProxyType(
        {str: str, int: int, float: float, bool: _truth, list: json.loads, dict: json.loads}
    )
    try:
        return readers[parameter.kind](text)
    except ValueError:
        raise ConfigRejected(_expectation(parameter, repr(text))) from None


def _typed(value: Any, parameter: Parameter) -> Any:
    if parameter.kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1000 else math.inf
    is_of_kind = isinstance(value, parameter.kind) and not (
        isinstance(value, bool) and parameter.kind is not bool
    )
    if not is_of_kind or not _carries(value, parameter):
        raise ConfigRejected(_expectation(parameter, repr(value)))
    return value


def _carries(value: Any, parameter: Parameter) -> bool:
    """Tell whether JSON has the number, and a list holds what its default holds."""
    if parameter.kind is float:
        return math.isfinite(value)
    if parameter.kind is list and parameter.default:
        kind = type(parameter.default[0])
        return all(type(each) is kind for each in value)
    return True


def _expectation(parameter: Parameter, got: str) -> str:
    example = json.dumps((parameter.default or [128, 256])[:2]) if parameter.kind is list else ""
    names = {
        str: "a text (in YAML, a number in quotes is one)",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        list: f"a list such as {example}",
        dict: "a mapping",
    }
    return f"{parameter.name}: expected {names[parameter.kind]}, got {got}"


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"
