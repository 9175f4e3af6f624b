"""``python -m needledrop.looking``: write a page to look at what a version has learned."""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from needledrop.artifacts import whole_file
from needledrop.errors import ConfigRejected
from needledrop.exit_status import DONE, exit_status

_EXAMPLES = """\
examples:
  python -m needledrop.looking --run runs/demo --data runs/demo/data --out runs/demo/look.html
  python -m needledrop.looking --registry s3://music/registry --features FILE --data ~/music \\
      --out look.html --title "undertow" --title "solar cranes"
  python -m needledrop.looking --bundle DIR --data ~/music --out look.html --songs 20000 --seed 7

The page needs nothing else but the clips, which it links to where they lie; without them it is
silent. What comes from plays is of the version itself: held-out songs are folded in from their
plays. What comes from sound is heard by its encoder now: from a run's features (--run finds them),
or else from the clips in DATA/audio, which takes longer.

exit status: 0 written, 1 failed, 2 usage
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    return exit_status(lambda: _look(options), if_stopped="nothing was written")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m needledrop.looking",
        description="Writes a page on what a version has learned: artists at both ends of each "
        "factor, nearest songs by usage and by audio side by side, and a t-SNE map of its songs.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = parser.add_mutually_exclusive_group(required=True)
    version.add_argument("--run", type=Path, metavar="DIR", help="a run's folder: its champion")
    version.add_argument("--registry", metavar="URI", help="the champion of a registry")
    version.add_argument("--bundle", type=Path, metavar="DIR", help="a bundle that isn't promoted")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with tracks; plays, tags and audio/ where there are",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page to write")
    parser.add_argument(
        "--features", metavar="FILE", help="the manifest of extracted features, a path or a URI"
    )
    parser.add_argument(
        "--clips",
        type=Path,
        metavar="DIR",
        help="link to clips in this folder alone; else DATA/audio",
    )
    parser.add_argument(
        "--title",
        action="append",
        default=[],
        metavar="TEXT",
        help="part of a title or an artist's name: these songs are shown in any case",
    )
    parser.add_argument("--songs", type=int, default=5_000, metavar="N", help="at most (5000)")
    parser.add_argument(
        "--queries", type=int, default=1_000, metavar="N", help="songs with neighbours (1000)"
    )
    parser.add_argument(
        "--artist-songs", type=int, default=3, metavar="N", help="an artist's at a factor's end (3)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of draws and map (0)")
    return parser


def _look(options: argparse.Namespace) -> int:
    # What takes seconds to import isn't needed to say how the command is used.
    from needledrop.audio.feature_store import FeatureStore
    from needledrop.encoders.bundle import Bundle
    from needledrop.looking.clip_links import clip_links
    from needledrop.looking.data_folder import SongFacts
    from needledrop.looking.document import document_of
    from needledrop.looking.heard_songs import hear_clips, hear_features
    from needledrop.looking.look import LookConfig, look_at

    started = time.monotonic()
    config = LookConfig(
        options.songs, options.queries, options.artist_songs, tuple(options.title), options.seed
    )
    if options.out.is_dir():
        raise ConfigRejected(
            f"--out {options.out}: expected a file such as look.html, got a folder"
        )
    bundle = Bundle.load(_bundle_folder(options))
    facts = SongFacts.read(options.data)
    if facts.n_broken_rows:
        print(
            f"{facts.n_broken_rows:,} broken rows of {options.data} are left out", file=sys.stderr
        )
    folder = options.clips or options.data / "audio"
    links = {}
    if options.clips or folder.is_dir():
        links = clip_links(facts.clips, folder, options.out)
    manifest = options.features or _features_of(options.run)
    if manifest:
        store = FeatureStore.open(manifest)
        hear, audible = hear_features(bundle, store), store.song_ids.tolist()
    else:
        hear, audible = hear_clips(bundle, facts.clips), list(facts.clips)
    content = look_at(bundle, facts, audible, hear, links, config, progress=_shown)
    with whole_file(options.out) as draft:
        draft.write_text(document_of(content), encoding="utf-8")
    about = content["about"]
    print(
        f"{options.out}: {about['n_songs']:,} songs of version {about['version']}, "
        f"{about['n_held_out']:,} of them held out, {sum(map(bool, content['songs']['link'])):,} "
        f"with sound; {options.out.stat().st_size / 1e6:.1f} MB after "
        f"{time.monotonic() - started:.0f} s"
    )
    return DONE


def _bundle_folder(options: argparse.Namespace) -> Path:
    from needledrop.promotion.registry import Registry

    if options.bundle:
        return Path(options.bundle)
    return Registry(options.registry or options.run / "registry").champion_path() / "bundle"


def _features_of(run: Path | None) -> Path | None:
    """Return the manifest that a run's folder has last extracted, or None."""
    found = run.glob("artifacts/*/*/extract-features/features/features.json") if run else ()
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _shown(song_ids: Sequence[str]) -> Iterable[str]:
    return tqdm(song_ids, desc="hearing", unit=" songs", disable=not sys.stderr.isatty())


if __name__ == "__main__":
    sys.exit(main())
