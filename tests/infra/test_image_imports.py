"""What the code of an image imports is in the image: seen without building it."""

import ast
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.infra.test_locked_subset import subset

ROOT = Path(__file__).parents[2]
ROOMS = ("needledrop", "feature_repo", "components", "serving")
ENTRANCES = {"data": "components", "serve": "serving"}
# Imported inside a function that isn't called there: Spark's driver runs in an image of its own,
# and the server makes no page with figures.
NOT_CALLED = {"data": {"pyspark"}, "serve": {"matplotlib"}}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_in(image: str) -> set[str]:
    """The names of all packages of an image's environment."""
    stages = (ROOT / "infra" / "images" / "Dockerfile").read_text()
    command = re.search(
        rf"AS {image}-environment\nRUN python3 locked_subset.py requirements.lock(.*?)>",
        stages,
        re.DOTALL,
    )[1]
    wanted, without = [], []
    words = iter(shlex.split(command.replace("\\\n", " ")))
    for word in words:
        if word == "--without":
            without.append(next(words))
        else:
            wanted.append(word)
    lock = subset.locked_packages((ROOT / "requirements.lock").read_text())
    return set(subset.needed_by(lock, wanted, without))


def file_of(module: str) -> Path | None:
    place = ROOT.joinpath(*module.split("."))
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)


def imported_by(tree: ast.AST) -> Iterator[str]:
    """All modules that code names to import, at the top or in a function; types' alone are not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            for one in node.names:
                submodule = f"{node.module}.{one.name}"
                is_ours = node.module.split(".")[0] in ROOMS
                yield submodule if is_ours and file_of(submodule) else node.module
        yield from imported_by(node)


def third_parties(room: str) -> dict[str, str]:
    """Top-level module that isn't ours -> one of ours that imports it, from a room's modules on."""
    files = (ROOT / room).rglob("*.py")
    waiting = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    seen: set[str] = set()
    found: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        path = file_of(module)
        if module in seen or path is None:
            continue
        seen.add(module)
        for name in imported_by(ast.parse(path.read_text())):
            top = name.split(".")[0]
            if top in ROOMS:
                waiting.append(name)
            elif top not in sys.stdlib_module_names:
                found.setdefault(top, module)
    return found


@pytest.mark.parametrize("image", ["data", "serve"])
def test_an_image_has_what_its_code_imports(image):
    installed, packages_of = installed_in(image), packages_distributions()
    lacking = {
        module: importer
        for module, importer in third_parties(ENTRANCES[image]).items()
        if not any(plain(package) in installed for package in packages_of[module])
    }
    assert lacking.keys() == NOT_CALLED[image], (
        f"{lacking}: name the package in infra/images/Dockerfile, or say here why it isn't called"
    )


@pytest.mark.parametrize("image", ["data", "serve"])
def test_no_image_has_a_type_checker_nor_the_libraries_of_a_gpu(image):
    installed = installed_in(image)
    assert not installed & {"mypy", "mypy-extensions", "ruff", "pytest", "triton", "moto"}
    assert {one for one in installed if one.startswith(("nvidia", "cuda"))} == {
        "nvidia-cuda-runtime"
    }


def test_what_the_project_depends_on_is_in_an_image_or_for_the_machine_that_submits():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {plain(re.match(r"[\w.-]+", one)[0]) for one in project["dependencies"]}
    assert named - installed_in("data") - installed_in("serve") == {"kfp-kubernetes"}
    traces = {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "pyjwt"}
    assert traces <= installed_in("serve")
    assert not {"h5py", "opentsne", "scikit-learn"} & installed_in("serve")
