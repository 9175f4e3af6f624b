"""Which code a pipeline's version was made from: its name in the Kubeflow UI."""

import subprocess
from pathlib import Path

from needledrop.artifacts import fingerprint_of_code
from needledrop.errors import ConfigRejected

ROOT = Path(__file__).parents[2]

# What a run computes with; notes and data beside it don't matter.
_CODE = ("needledrop", "components", "feature_repo", "pipelines", "requirements.lock")
_DIGITS = 12


def revision_of_code(root: Path = ROOT, *, allow_dirty: bool = False) -> str:
    """Return the git commit (12 digits), or the code's fingerprint where there is no git.

    Args:
        root: of the checkout.
        allow_dirty: take code that isn't committed; its name ends with -dirty and the library's
            fingerprint, so that two states of it are two names.

    Raises:
        ConfigRejected: the code differs from its commit, and that isn't allowed.
    """
    commit = _git(root, "rev-parse", "HEAD")
    # A copy of the project inside somebody else's checkout is none of that commit.
    if not commit or not _git(root, "ls-files", "pipelines/train.py"):
        return f"code-{fingerprint_of_code()[:_DIGITS]}"
    changed = _git(root, "status", "--porcelain", "--", *_CODE)
    if not changed:
        return commit[:_DIGITS]
    if not allow_dirty:
        first = changed.splitlines()[0].split()[-1]
        raise ConfigRejected(
            f"expected code as it was committed, got changes ({first}); commit them, or give "
            "--allow-dirty to have the version marked"
        )
    return f"{commit[:_DIGITS]}-dirty-{fingerprint_of_code()[:8]}"


def _git(root: Path, *arguments: str) -> str:
    """Return what git prints; nothing where there is no git, or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
