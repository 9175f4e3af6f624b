"""The champion pointer, moved by one rename, and the history of its moves.

``champion.json`` is the truth. The history line of a move is written after it; if the writer is
killed in between, the pointer still knows its last move and the next one makes the line good.
"""

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from needledrop.artifacts import read_json, write_json
from needledrop.errors import ArtifactBroken

Action = Literal["promote", "rollback"]


@dataclass(frozen=True)
class Move:
    """One move of the champion pointer.

    Attributes:
        number: 1 for the first move of this registry, and so on without a gap.
        action: "promote" or "rollback".
        from_version: the champion before; None where there was none.
        to_version: the champion after.
        moved_at: UTC, ISO 8601.
        run_id: who moved it, as the caller said; None where nobody said.
    """

    number: int
    action: Action
    from_version: str | None
    to_version: str
    moved_at: str
    run_id: str | None


@dataclass(frozen=True)
class Champion:
    """The content of ``champion.json``.

    Attributes:
        version: the champion.
        previous: the champions to roll back to, the latest last.
        rolled_back: versions that were taken out of service and not promoted again since.
        move: how the version became the champion.
    """

    version: str
    previous: tuple[str, ...]
    rolled_back: tuple[str, ...]
    move: Move


class ChampionPointer:
    """Reads without a lock; whoever moves it holds the registry's lock.

    Args:
        root: the folder of ``champion.json`` and ``history.jsonl``.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "champion.json"
        self._history_path = root / "history.jsonl"

    def read(self) -> Champion | None:
        """Return the champion, None where there is none yet.

        Raises:
            ArtifactBroken: the pointer file isn't one.
        """
        if not self._path.exists():
            return None
        content = read_json(self._path)
        try:
            return _champion_from_json(content)
        except (KeyError, TypeError) as error:
            raise ArtifactBroken(
                f"expected a champion pointer in {self._path}, got something else "
                f"({type(error).__name__}: {error}); restore it from {self._history_path.name}"
            ) from error

    def history(self) -> list[Move]:
        """Return all moves, oldest first, also one that didn't get to the history file.

        Raises:
            ArtifactBroken: the history file isn't one.
        """
        moves = _moves_in(self._history_path)
        champion = self.read()
        if champion and (not moves or moves[-1].number < champion.move.number):
            moves.append(champion.move)
        return moves

    def move(
        self,
        action: Action,
        version: str,
        *,
        previous: tuple[str, ...],
        rolled_back: tuple[str, ...],
        run_id: str | None,
    ) -> Move:
        """Point to another version, then write the history."""
        before = self.read()
        move = Move(
            number=before.move.number + 1 if before else 1,
            action=action,
            from_version=before.version if before else None,
            to_version=version,
            moved_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            run_id=run_id,
        )
        moves = [*self.history(), move]
        write_json(self._path, _json_from_champion(Champion(version, previous, rolled_back, move)))
        _append_missing(self._history_path, moves)
        return move


def _json_from_champion(champion: Champion) -> dict[str, Any]:
    move = asdict(champion.move)
    del move["to_version"]
    return {
        "version": champion.version,
        "previous": list(champion.previous),
        "rolled_back": list(champion.rolled_back),
        **move,
    }


def _champion_from_json(content: dict[str, Any]) -> Champion:
    stacks = ("version", "previous", "rolled_back")
    move = {name: value for name, value in content.items() if name not in stacks}
    return Champion(
        version=content["version"],
        previous=tuple(content["previous"]),
        rolled_back=tuple(content["rolled_back"]),
        move=Move(to_version=content["version"], **move),
    )


def _moves_in(path: Path) -> list[Move]:
    """Read a history; a last line that was cut off by a kill doesn't count."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        return [Move(**json.loads(line)) for line in lines]
    except (TypeError, ValueError) as error:
        raise ArtifactBroken(
            f"expected one move a line in {path}, got something else ({error}); restore the file"
        ) from error


def _append_missing(path: Path, moves: list[Move]) -> None:
    """Append the moves that the file lacks and flush it; cut off a half-written last line first."""
    n_present = len(_moves_in(path))
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        for move in moves[n_present:]:
            file.write(json.dumps(asdict(move), sort_keys=True).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
