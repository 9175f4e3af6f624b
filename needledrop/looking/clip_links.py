"""How a page on a disk finds the sound of its songs: links to files of one folder, no others."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from needledrop.errors import ConfigRejected


def clip_links(clips: Mapping[str, Path], folder: Path, page: Path) -> dict[str, str]:
    """Return song_id -> a link from the page to the song's clip, relative and percent-encoded.

    A clip that is gone, is no file, or lies outside the folder once symbolic links are followed,
    gets no link: who hands the page and the folder on must not hand on anything else.

    Args:
        clips: song_id -> file.
        folder: where clips may lie.
        page: the file that the links start from.

    Raises:
        ConfigRejected: the folder isn't there, or no relative path leads to it.
    """
    if not folder.is_dir():
        raise ConfigRejected(f"--clips {folder}: expected a folder of clips, found none")
    real_folder = folder.resolve()
    try:
        way = Path(os.path.relpath(real_folder, page.resolve().parent)).as_posix()
    except ValueError as error:  # another drive, on Windows
        raise ConfigRejected(
            f"--clips {folder}: expected a folder that a relative link from {page} reaches; write "
            "the page onto the same drive"
        ) from error
    links = {}
    for song_id, clip in clips.items():
        real_clip = clip.resolve()
        if real_clip.is_relative_to(real_folder) and real_clip.is_file():
            links[song_id] = quote(f"{way}/{real_clip.relative_to(real_folder).as_posix()}")
    return links
