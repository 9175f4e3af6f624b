"""Fingerprints the data without reading it: by names, sizes, and times or ETags."""

from datetime import UTC, datetime

from components.journal import Journal
from needledrop.artifacts import fingerprint_of_code, fingerprint_of_json
from needledrop.errors import PlaysRejected, TracksRejected
from needledrop.plays.source import SourceFile, source_files
from needledrop.storage.opening import place_at


def survey(plays: str, tracks: str, audio: str, max_age_days: float, journal: Journal) -> str:
    """Return 64 hexadecimal digits that change with the data, the code, or a day that matters.

    Raises:
        PlaysRejected, TracksRejected: nothing is there, or it can't be reached.
        StoreUnreachable: the object store doesn't answer.
    """
    tables = [
        *source_files(plays, what="plays", rejected=PlaysRejected),
        *source_files(tracks, what="tracks", rejected=TracksRejected),
    ]
    clips = place_at(audio).listing()
    journal.record(
        {
            "n_table_files": len(tables),
            "n_audio_files": len(clips),
            "data_bytes": sum(one.n_bytes for one in (*tables, *clips)),
        }
    )
    return fingerprint_of_json(
        {
            "tables": [[file.name, file.n_bytes, _stamp(file)] for file in tables],
            "clips": [[clip.location, clip.n_bytes, clip.stamp] for clip in clips],
            "code": fingerprint_of_code(),
            "day": datetime.now(UTC).date().isoformat() if max_age_days > 0 else "",
        }
    )


def _stamp(file: SourceFile) -> str:
    about = file.file_system.info(file.path)
    known = (about.get(key) for key in ("ETag", "etag", "mtime", "LastModified"))
    return next((str(value) for value in known if value is not None), "")
