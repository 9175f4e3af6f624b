"""The part of the lock that an image installs: whole packages, with all that they ask for."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def loaded(name: str):
    path = ROOT / "infra" / "images" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


subset = loaded("locked_subset")

LOCK = """\
a==1 \\
    --hash=sha256:11 \\
    --hash=sha256:12
    # via
    #   b
    #   c[extra]
b==2 ; python_version > '3' \\
    --hash=sha256:21
    # via needledrop (pyproject.toml)
c[extra]==3 \\
    --hash=sha256:31
    # via b
d-gpu==4 \\
    --hash=sha256:41
    # via b
e==5 \\
    --hash=sha256:51
    # via d-gpu
"""


def needed(wanted, without=()):
    return subset.needed_by(subset.locked_packages(LOCK), wanted, without)


def test_a_package_brings_what_it_asks_for_and_keeps_its_hashes():
    assert needed(["b"]) == ["a", "b", "c", "d-gpu", "e"]
    assert needed(["a"]) == ["a"]
    assert needed(["c"]) == ["a", "c"]
    assert "--hash=sha256:12" in subset.locked_packages(LOCK)["a"]


def test_what_is_left_out_brings_nothing_unless_it_is_wanted():
    assert needed(["b"], ["d-*"]) == ["a", "b", "c"]
    assert needed(["b", "d-gpu"], ["d-*"]) == ["a", "b", "c", "d-gpu", "e"]
    assert needed(["d-*"]) == ["d-gpu", "e"]


def test_a_package_that_the_lock_lacks_is_named():
    with pytest.raises(SystemExit, match="expected packages of the lock, got torhc"):
        needed(["torhc"])


def test_every_package_of_the_real_lock_is_found_and_asked_for_by_somebody(monkeypatch, capsys):
    lock = ROOT / "requirements.lock"
    packages = subset.locked_packages(lock.read_text())
    assert "".join(packages.values()) == lock.read_text()
    assert all("--hash=sha256:" in text for text in packages.values())
    monkeypatch.setattr(sys, "argv", ["locked_subset.py", str(lock), "kserve", "torch"])
    subset.main()
    printed = capsys.readouterr().out
    assert {"kserve", "fastapi", "torch", "nvidia-cublas"} <= set(subset.locked_packages(printed))
    assert "great-expectations" not in subset.locked_packages(printed)
