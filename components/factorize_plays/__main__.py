"""The factorisation as a program, which spark-submit and the Spark Operator start.

python -m components.factorize_plays --plays FOLDER --split FILE --factors FOLDER [--set NAME=VALUE]
"""

import argparse
import dataclasses
import json
from pathlib import Path

from components.factorize_plays.factorizing import factorize
from components.journal import journal
from needledrop.errors import ConfigRejected
from needledrop.factors.confidence import ConfidenceConfig
from needledrop.factors.wmf import WmfConfig


def main(arguments: list[str] | None = None) -> None:
    """Factorise accepted plays, and leave factors and report beside one another."""
    parser = argparse.ArgumentParser(
        prog="python -m components.factorize_plays", description="Factorise accepted plays."
    )
    parser.add_argument("--plays", type=Path, required=True, help="folder of accepted plays")
    parser.add_argument("--split", type=Path, required=True, help="the split's file")
    parser.add_argument("--factors", type=Path, required=True, help="folder to write")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args(arguments)
    with journal("factorize_plays") as log:
        config = config_from(options.set)
        page = factorize(options.plays, options.split, config, options.factors, log)
        page.save(options.factors.with_name(f"{options.factors.name}.html"))


def config_from(settings: list[str]) -> WmfConfig:
    """Build a configuration from NAME=VALUE; alpha and epsilon are the confidence's.

    Raises:
        ConfigRejected: a name is unknown, or a value is refused.
    """
    values = dict(one.partition("=")[::2] for one in settings)
    confidence = {name: values.pop(name) for name in ("alpha", "epsilon") if name in values}
    known = [one.name for one in dataclasses.fields(WmfConfig) if one.name != "confidence"]
    if unknown := sorted(values.keys() - set(known)):
        raise ConfigRejected(
            f"--set {unknown[0]}: expected alpha, epsilon or one of {', '.join(known)}"
        )
    try:
        return WmfConfig(
            **{"engine": "spark"} | {name: _value(text) for name, text in values.items()},
            confidence=ConfidenceConfig(**{name: float(text) for name, text in confidence.items()}),
        )
    except (TypeError, ValueError) as error:
        raise ConfigRejected(f"--set: expected NAME=VALUE with numbers, got {error}") from None


def _value(text: str) -> int | float | str:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text


if __name__ == "__main__":
    main()
