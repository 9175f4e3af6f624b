"""What the images hold and weigh.

    make images && python benchmarks/images.py [--tag 0.1.0]

Prints each image's size and number of packages, and the serving image's packages, largest first.
"""

import argparse
import json
import subprocess

from machine import machine

_SIZES = """
import json
from importlib.metadata import distributions
sizes = {}
for one in distributions():
    paths = (one.locate_file(path) for path in one.files or ())
    sizes[one.name + " " + one.version] = sum(p.stat().st_size for p in paths if p.is_file())
print(json.dumps(sizes))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tag", default="0.1.0")
    options = parser.parse_args()
    print(machine())
    for name in ("data", "train", "spark", "serve"):
        image = f"needledrop-{name}:{options.tag}"
        size = int(_docker("image", "inspect", "--format", "{{.Size}}", image))
        packages = json.loads(
            _docker("run", "--rm", "--network=none", "--entrypoint=python3", image, "-c", _SIZES)
        )
        print(f"\n{image}: {size / 1e9:.2f} GB, {len(packages)} packages")
        if name == "serve":
            for package, n_bytes in sorted(packages.items(), key=lambda item: -item[1]):
                print(f"  {n_bytes / 1e6:8.1f} MB  {package}")


def _docker(*arguments: str) -> str:
    return subprocess.run(
        ["docker", *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
