"""What a dataset's files may be."""

from dataclasses import dataclass

from needledrop.plays.limits import require_count, require_share


@dataclass(frozen=True)
class ImportLimits:
    """How much may be broken, and how large things may get.

    Attributes:
        max_rejected_share: the share of a file's lines that may be broken.
        max_rejected_rows: the number of broken lines beyond which reading stops at once.
        max_unpacked_bytes: what a packed file may unpack to.
        max_unpacking_ratio: unpacked bytes a packed one; text comes to about 6.
        max_json_bytes: one track's JSON.
        max_text_chars: the longest artist's name, title, release or tag.

    Raises:
        ConfigRejected: a value out of its range.
    """

    max_rejected_share: float = 0.01
    max_rejected_rows: int = 500_000
    max_unpacked_bytes: int = 1 << 36
    max_unpacking_ratio: int = 200
    max_json_bytes: int = 1 << 22
    max_text_chars: int = 1000

    def __post_init__(self) -> None:
        require_share("max_rejected_share", self.max_rejected_share)
        for name in (
            "max_rejected_rows",
            "max_unpacked_bytes",
            "max_unpacking_ratio",
            "max_json_bytes",
            "max_text_chars",
        ):
            require_count(name, getattr(self, name))
