"""The factorisation as a program, which spark-submit and the Spark Operator start.

spark-submit components/factorize_plays/__main__.py LOCATION
"""

import argparse
from functools import partial
from pathlib import Path

from components.factorize_plays.factorizing import factorize
from components.factorize_plays.launching import leave
from components.factorize_plays.request import load_request
from components.journal import journal
from needledrop.storage.opening import place_at


def main(location: str) -> None:
    """Factorise what was handed over at a location, and leave the outcome there."""
    place = place_at(location)
    with journal("factorize_plays") as log:
        inputs = place.folder("inputs")
        config = load_request(inputs / "request.json")
        with place.new_folder("outcome") as folder:
            find_plays = partial(plays_at, location)
            page = factorize(find_plays, inputs / "split", config, folder / "factors", log)
            leave(page, log, folder)


def plays_at(location: str) -> Path:
    """Return the folder of plays on this machine: the driver's, or an executor's."""
    return place_at(location).folder("inputs") / "plays"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Factorise what a step has handed over.")
    parser.add_argument("location", help="folder or s3:// URI with inputs")
    main(parser.parse_args().location)
