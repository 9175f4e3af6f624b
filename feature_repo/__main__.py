"""The command line: ``python -m feature_repo withdraw | restore | block | unblock | ...``."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from needledrop.errors import ConfigRejected
from needledrop.exit_status import DONE, exit_status
from needledrop.plays.rules import MOST_ID_CHARS, expected_id, id_pattern, matching

_EXAMPLES = """\
examples:
  python -m feature_repo withdraw SO0001 SO0002 --store runs/demo/store
  python -m feature_repo restore SO0001 --store runs/demo/store
  python -m feature_repo block SO0003 --region SE --region NO --store s3://models/store
  python -m feature_repo unblock SO0003 --region NO --store s3://models/store
  python -m feature_repo release-at SO0004 --time 2031-05-01T00:00+02:00 --store runs/demo/store
  python -m feature_repo show SO0003 SO0004 --store runs/demo/store
  cut -f1 recalled.tsv | python -m feature_repo withdraw - --store runs/demo/store

Servers take a change up within seconds, without a restart. It holds for every version, until the
next one about the same song. To release a song at once, give a time that has passed.

exit status: 0 done, 1 failed, 2 usage
"""
_ACTS = {
    "withdraw": "never recommend these songs",
    "restore": "take a withdrawal back",
    "block": "don't recommend them in some regions",
    "unblock": "recommend them there again",
    "release-at": "don't recommend them before a time",
    "show": "print what holds for them",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    return exit_status(lambda: _act(options), if_stopped="run the same again to see it done")


def _act(options: argparse.Namespace) -> int:
    # Opening a store imports Feast, which takes seconds: what can be refused before is.
    song_ids, change = _song_ids(options.song_ids), _change(options)
    from feature_repo.store import FactorStore

    store = FactorStore.open(options.store, make=False)
    if change is None:
        _show(store, song_ids)
    else:
        _set(store, song_ids, change, options.act)
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m feature_repo",
        description="Says whether, from when and where songs may be recommended.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    acts = parser.add_subparsers(required=True, metavar="COMMAND", dest="act")
    for name, what in _ACTS.items():
        act = acts.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        act.add_argument(
            "song_ids", nargs="+", metavar="SONG_ID", help="or - to read them, one a line"
        )
        act.add_argument("--store", required=True, metavar="PLACE", help="a folder or s3:// URI")
        if name in ("block", "unblock"):
            act.add_argument(
                "--region",
                action="append",
                required=True,
                metavar="CODE",
                help="two letters, as in ISO 3166-1; may be given several times",
            )
        if name == "release-at":
            act.add_argument(
                "--time", required=True, help="ISO 8601; a date is its first second in UTC"
            )
    return parser


def _song_ids(given: list[str]) -> list[str]:
    """The ids, each once, some of them from standard input.

    Raises:
        ConfigRejected: there are none, they are no text, or one is no id.
    """
    try:
        lines = [line for one in given for line in (sys.stdin if one == "-" else [one])]
        "".join(lines).encode()
    except UnicodeError:
        raise ConfigRejected(
            "expected song ids in UTF-8, got something else; convert the list, as with iconv"
        ) from None
    # Some systems begin a text with a mark of their own, which nobody sees.
    ids = [song_id for line in lines if (song_id := line.removeprefix("\ufeff").strip())]
    if not ids:
        raise ConfigRejected("expected song ids, got none; give some, or one a line after -")
    for song_id, is_one in zip(ids, matching(ids, id_pattern(MOST_ID_CHARS)), strict=True):
        if not is_one:
            raise ConfigRejected(
                f"song id: expected {expected_id(MOST_ID_CHARS)}, got {song_id[:80]!r}; nothing "
                "was changed"
            )
    return list(dict.fromkeys(ids))


def _change(options: argparse.Namespace) -> dict[str, Any] | None:
    from feature_repo.regions import checked_regions

    match options.act:
        case "withdraw":
            return {"withdrawn": True}
        case "restore":
            return {"withdrawn": False}
        case "block" | "unblock":
            return {options.act: checked_regions(options.region)}
        case "release-at":
            return {"available_from": _moment(options.time)}
    return None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigRejected(
            f"expected a time such as 2031-05-01 or 2031-05-01T00:00+02:00, got {text!r}"
        ) from None
    if moment.tzinfo is None:
        if len(text) > len("2031-05-01"):
            raise ConfigRejected(f"expected a time with its zone, such as {text}Z, got {text!r}")
        moment = moment.replace(tzinfo=UTC)
    return moment


def _set(store: Any, song_ids: list[str], change: dict[str, Any], act: str) -> None:
    store.set_availability(song_ids, **change)
    print(f"{act}: {len(song_ids):,} {'song' if len(song_ids) == 1 else 'songs'}")
    is_published = _published(store, song_ids)
    if is_published is None:
        print("nothing is published yet; it holds from the first version on")
    elif not is_published.all():
        unknown = np.array(song_ids)[~is_published]
        print(
            f"{len(unknown):,} of them are not in the published version, such as {unknown[0]}; it "
            "holds for them when they come"
        )


def _show(store: Any, song_ids: list[str]) -> None:
    held = store.availability(song_ids)
    is_published = _published(store, song_ids)
    for row, song_id in enumerate(song_ids):
        words = ["withdrawn"] if held.is_withdrawn[row] else []
        if not np.isnat(held.available_from[row]):
            words.append(f"available from {held.available_from[row]}Z")
        if held.blocked_regions[row]:
            words.append(f"blocked in {held.blocked_regions[row]}")
        if is_published is None:
            words.append("nothing is published yet")
        elif not is_published[row]:
            words.append("not in the published version")
        print(f"{song_id}: {', '.join(words) or 'available'}")


def _published(store: Any, song_ids: list[str]) -> NDArray[np.bool_] | None:
    """Return which songs (n,) the published version has; None where none is published."""
    version = store.online_version("song_factors")
    return None if version is None else store.published_songs(song_ids, version=version)


if __name__ == "__main__":
    raise SystemExit(main())
