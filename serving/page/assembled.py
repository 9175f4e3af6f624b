"""The page as one document: styles and scripts are put into the HTML, and nothing else is loaded.

Its Content-Security-Policy allows exactly these styles and scripts, by their hashes, and no address
but the server's own. ``require-trusted-types-for`` makes the browser itself refuse every way of
turning text into elements, so a song titled ``<script>`` can only ever be shown as that text.
"""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent / "assets"
_SCRIPTS = ("asking.js", "clip.js", "map.js", "lists.js", "page.js")


@dataclass(frozen=True)
class AssembledPage:
    """A document and the headers that it is answered with.

    Attributes:
        content: HTML in UTF-8.
        headers: of the answer; the content type is among them.
    """

    content: bytes
    headers: dict[str, str]


def assembled_page() -> AssembledPage:
    """Read the assets and put them together."""
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    # One after the other in one module: they see one another's functions, and the page is one
    # request.
    script = "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    document = (_FOLDER / "page.html").read_text(encoding="utf-8")
    document = document.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash_of(style)}",
            f"script-src {_hash_of(script)}",
            "connect-src 'self'",
            "media-src 'self' blob:",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )
    return AssembledPage(
        document.encode(),
        {
            "content-type": "text/html; charset=utf-8",
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
            "vary": "accept",
        },
    )


def _hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
