"""A wheel holds all that the packages read."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("needledrop", "components", "pipelines", "serving", "feature_repo")


def test_a_wheel_holds_every_file_that_a_package_reads(tmp_path):
    here = tmp_path / "here"
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, here / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, here)
    # A README beside code is for who reads the code.
    there = {
        str(file.relative_to(here))
        for package in PACKAGES
        for file in (here / package).rglob("*")
        if file.is_file() and file.name != "README.md"
    }
    build = "import setuptools.build_meta, sys; setuptools.build_meta.build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=here, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == there
    assert "needledrop/looking/assets/page.html" in packed
