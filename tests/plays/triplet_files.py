"""Files of triplets, and what reading them says."""

import pytest

from needledrop.errors import PlaysRejected
from needledrop.plays.triplets import PlaysConfig, read_plays

GOOD = "ana\tSOA\t3\nbob\tSOB\t1\n"
TOLERANT = PlaysConfig(max_rejected_share=1.0)


def as_dict(plays):
    matrix = plays.user_song.tocoo()
    return {
        (str(plays.user_ids[row]), str(plays.song_ids[column])): int(count)
        for row, column, count in zip(matrix.row, matrix.col, matrix.data, strict=True)
    }


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def refusal(path, content, config=None):
    with pytest.raises(PlaysRejected) as refused:
        read_plays(written(path, content), config)
    message = str(refused.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message
