"""The champion pointer, moved by one swap, and the history of its moves.

``champion.json`` is the truth. The history line of a move is written after it; if the writer is
killed in between, the pointer still knows its last move and the next one makes the line good.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from needledrop.errors import ArtifactBroken, RegistryConflict
from needledrop.storage.place import Place

_POINTER, _HISTORY = "champion.json", "history"

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
    """Reads without a lock; of two who move it at once, one succeeds.

    Args:
        root: where ``champion.json`` and the history lie.
    """

    def __init__(self, root: Place) -> None:
        self._root = root

    def read(self) -> Champion | None:
        """Return the champion, None where there is none yet.

        Raises:
            ArtifactBroken: the pointer file isn't one.
        """
        return self._read()[0]

    def history(self) -> list[Move]:
        """Return all moves, oldest first, also one that didn't get to the history file.

        Raises:
            ArtifactBroken: the history file isn't one.
        """
        return self._history_until(self.read())

    def move(
        self,
        action: Action,
        version: str,
        *,
        before: Champion | None,
        previous: tuple[str, ...],
        rolled_back: tuple[str, ...],
        run_id: str | None,
    ) -> Move:
        """Point to another version, then write the history.

        Args:
            action: why.
            version: the new champion.
            before: the pointer as the caller saw it when deciding.
            previous: of the new pointer, see :class:`Champion`.
            rolled_back: of the new pointer.
            run_id: who moves it.

        Raises:
            RegistryConflict: the pointer isn't as the caller saw it any more.
        """
        present, stamp = self._read()
        if present != before:
            raise _moved_meanwhile(before, present)
        move = Move(
            number=before.move.number + 1 if before else 1,
            action=action,
            from_version=before.version if before else None,
            to_version=version,
            moved_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            run_id=run_id,
        )
        moves = self._history_until(before)
        if moves:
            self._append(moves)  # the last one may lack its line, and soon nobody knows it any more
        content = _json_from_champion(Champion(version, previous, rolled_back, move))
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        if not self._root.swap(_POINTER, text.encode(), stamp):
            raise _moved_meanwhile(before, self.read())
        self._append([*moves, move])
        return move

    def _read(self) -> tuple[Champion | None, str | None]:
        """Return the champion, and the stamp that a swap of the pointer takes."""
        content = self._root.read(_POINTER)
        if content is None:
            return None, None
        try:
            return _champion_from_json(json.loads(content.data)), content.stamp
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtifactBroken(
                f"expected a champion pointer in {self._root.uri}/{_POINTER}, got something else "
                f"({type(error).__name__}: {error}); restore it from {_HISTORY}"
            ) from error

    def _history_until(self, champion: Champion | None) -> list[Move]:
        moves = _moves_from(self._root.lines(_HISTORY), self._root.uri)
        if champion and (not moves or moves[-1].number < champion.move.number):
            moves.append(champion.move)
        return moves

    def _append(self, moves: list[Move]) -> None:
        lines = [json.dumps(asdict(move), sort_keys=True) for move in moves]
        self._root.append_missing(_HISTORY, lines)


def _moved_meanwhile(before: Champion | None, present: Champion | None) -> RegistryConflict:
    expected, got = (one.version if one else "none" for one in (before, present))
    return RegistryConflict(
        f"expected the champion {expected}, got {got}: another run moved the pointer meanwhile; "
        "look at the new champion and decide again"
    )


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


def _moves_from(lines: list[str], uri: str) -> list[Move]:
    try:
        return [Move(**json.loads(line)) for line in lines]
    except (TypeError, ValueError) as error:
        raise ArtifactBroken(
            f"expected one move a line in the history of {uri} (history.jsonl, or in an object "
            f"store the objects below history/), got something else ({error}); mend that line, or "
            "move the file away: the champion pointer alone counts"
        ) from error
