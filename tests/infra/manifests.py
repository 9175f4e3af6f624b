"""The manifests as kubectl renders them, and the PromQL in them."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

KUSTOMIZE = Path(__file__).parents[2] / "infra" / "kustomize"
OVERLAYS = sorted(path.name for path in (KUSTOMIZE / "overlays").iterdir())
FUNCTIONS = {
    "absent",
    "count",
    "histogram_quantile",
    "increase",
    "max",
    "min",
    "rate",
    "sum",
    "time",
}
WORDS = {"by", "unless", "and", "or", "on"}


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    """Every object of an overlay."""
    assert shutil.which("kubectl"), "expected kubectl 1.21 or newer, found none; install it"
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUSTOMIZE / "overlays" / overlay)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


def of_kind(overlay: str, kind: str) -> list[dict[str, Any]]:
    return [thing for thing in rendered(overlay) if thing["kind"] == kind]


def only(overlay: str, kind: str, name: str | None = None) -> dict[str, Any]:
    [thing] = [
        one for one in of_kind(overlay, kind) if name is None or one["metadata"]["name"] == name
    ]
    return thing


def balanced(expression: str) -> bool:
    """Whether every bracket is closed by its own kind, outside of strings."""
    waiting: list[str] = []
    pairs = {")": "(", "]": "[", "}": "{"}
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    for character in plain:
        if character in pairs.values():
            waiting.append(character)
        elif character in pairs and (not waiting or waiting.pop() != pairs[character]):
            return False
    return not waiting and plain.count('"') % 2 == 0


def selectors_in(expression: str) -> list[tuple[str, set[str]]]:
    """(metric, labels) of each vector selector, an empty set of labels where it names none."""
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    plain = re.sub(r"\bby\s*\([^)]*\)", " by ", plain)
    plain = re.sub(r"\[[^\]]*\]", "", plain)
    found = []
    for name, braces in re.findall(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?", plain.replace("()", "")):
        if name not in FUNCTIONS | WORDS:
            found.append((name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", braces))))
    return found


def groupings_in(expression: str) -> set[str]:
    """The labels in every ``by (...)``."""
    groups = re.findall(r"\bby\s*\(([^)]*)\)", expression)
    return {label.strip() for group in groups for label in group.split(",")}
