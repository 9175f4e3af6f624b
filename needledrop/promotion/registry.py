"""Registered versions, append-only, and one pointer to the champion.

::

    root/                       a folder, or s3://bucket/prefix
      lock                      held (flock) by whoever writes; in a folder alone
      champion.json             {"version", "previous": [...], "rolled_back": [...], "moved_at",
                                "run_id", "number", "action", "from_version"}
      history.jsonl             one line a move; in an object store one object, history/000001
      versions/<version>/
        bundle/                 as it was added
        evaluation.json  verdict.json  MODEL_CARD.md
        record.json             {"version", "bundle_fingerprint", "added_at", "run_id"}

A version appears whole or not at all, and is never changed afterwards; its recorded fingerprint is
checked before it becomes the champion, and before a copy of it is used. (Files aren't made
read-only: their mode would travel with every copy of the bundle, and stop nobody who may write to
the folder.) ``champion.json`` is replaced by one swap, so readers need no lock and see the old
champion or the new one.
"""

import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from needledrop.artifacts import fingerprint_of_folder, write_json
from needledrop.errors import ArtifactBroken, NoChampion, RegistryConflict
from needledrop.promotion.champion import Champion, ChampionPointer, Move
from needledrop.promotion.model_card import model_card
from needledrop.promotion.verdict import Verdict
from needledrop.ranking.report import Report
from needledrop.storage.opening import place_at
from needledrop.storage.place import json_in_folder

__all__ = ["Move", "Registry"]

_MODEL_CARD = "MODEL_CARD.md"
_RECORDED = {"version", "bundle_fingerprint", "added_at"}
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Registry:
    """Versions with one champion, in a folder or an object store; for many processes at once.

    Args:
        root: a folder or ``s3://bucket/prefix``; made when something is first written.
        lock_timeout_seconds: how long a writer waits for another one, in a folder. In an object
            store nobody waits: conditional writes decide between two.

    Every method may raise ``StoreUnreachable`` where the registry is in an object store.
    """

    def __init__(self, root: str | Path, *, lock_timeout_seconds: float = 600.0) -> None:
        self._root = place_at(root)
        self._versions = self._root.at("versions")
        self._pointer = ChampionPointer(self._root)
        self._lock_timeout_seconds = lock_timeout_seconds

    def versions(self) -> list[str]:
        """Return the registered versions, in the order in which they were added."""
        records = [self._record(name) for name in self._versions.folders()]
        known = [record for record in records if record is not None]
        return [one["version"] for one in sorted(known, key=lambda one: str(one["added_at"]))]

    def path(self, version: str) -> Path:
        """Return the folder of a version; from an object store a copy that was checked.

        Raises:
            ArtifactBroken: there is no such version, and the message lists those that there are;
                or what the object store has is not what was added.
        """
        recorded = self._known_record(version)["bundle_fingerprint"]
        folder = self._versions.folder(version)
        if self._versions.is_remote and fingerprint_of_folder(folder / "bundle") != recorded:
            # The copy on this machine has suffered; the next one is the store's own fault.
            folder = self._versions.folder(version, fresh=True)
            _check_bundle(folder, version, recorded)
        return folder

    def bundle_path(self, version: str) -> Path:
        """Return the folder of a version's bundle; raises as :meth:`path` does."""
        return self.path(version) / "bundle"

    def forget_copies(self, unused_seconds: float, most: int) -> list[Path]:
        """Remove this machine's copies of versions that nobody has asked for so long, and others.

        Returns:
            At most so many that stay, those that were asked for last.
        """
        return self._versions.forget_copies(unused_seconds, most)

    def model_card(self, version: str) -> str:
        """Return a version's model card, in Markdown.

        Raises:
            ArtifactBroken: there is no such version, or its card is missing.
        """
        self._known_record(version)
        card = self._versions.read_in_folder(version, _MODEL_CARD)
        if card is None:
            raise ArtifactBroken(
                f"expected {_MODEL_CARD} in version {version} of {self._root.uri}, found none; "
                "restore it, or train again"
            )
        return card.decode("utf-8")

    def champion(self) -> str | None:
        """Return the champion's version, or None where nothing has been promoted yet."""
        champion = self._pointer.read()
        return champion.version if champion else None

    def champion_path(self) -> Path:
        """Return the folder of the champion.

        Raises:
            NoChampion: nothing has been promoted yet.
        """
        version = self.champion()
        if version is None:
            raise NoChampion(
                f"expected a champion in {self._root.uri}, found none; run the training pipeline "
                "until a candidate is promoted"
            )
        return self.path(version)

    def rolled_back_versions(self) -> tuple[str, ...]:
        """Return the versions that were rolled back and haven't been promoted again since."""
        champion = self._pointer.read()
        return champion.rolled_back if champion else ()

    def history(self) -> list[Move]:
        """Return all moves of the champion pointer, oldest first."""
        return self._pointer.history()

    def add(
        self,
        bundle_folder: Path,
        report_path: Path,
        verdict_path: Path,
        *,
        version: str,
        metadata: Mapping[str, Any] | None = None,
        run_id: str | None = None,
    ) -> str:
        """Register a version: copy its bundle, report and verdict, and write its model card.

        Adding the same bundle again changes nothing and keeps the first report and verdict.

        Args:
            bundle_folder: everything below it is copied.
            report_path: ``evaluation.json``.
            verdict_path: ``verdict.json``.
            version: the bundle's version; letters, digits, ``.``, ``_`` and ``-``.
            metadata: facts about data, code and training for the model card.
            run_id: who adds it.

        Returns:
            The version.

        Raises:
            ArtifactBroken: the bundle, the report or the verdict is missing or broken.
            RegistryConflict: this version exists with another bundle, or has just been added with
                one.
        """
        bundle_folder = Path(bundle_folder)
        if not _VERSION.fullmatch(version):
            raise ArtifactBroken(
                f"expected a version of letters, digits, '.', '_' and '-', got {version!r}"
            )
        report, verdict = Report.load(report_path), Verdict.load(verdict_path)
        if not any(bundle_folder.rglob("*")):
            raise ArtifactBroken(
                f"expected a bundle in {bundle_folder}, found nothing; train first"
            )
        fingerprint = fingerprint_of_folder(bundle_folder)
        with self._root.alone(self._lock_timeout_seconds):
            if self._record(version) is None:
                with self._versions.new_folder(version) as folder:
                    _copy_bundle(bundle_folder, folder / "bundle", fingerprint)
                    report.save(folder / "evaluation.json")
                    verdict.save(folder / "verdict.json")
                    card = model_card(report, verdict, {**(metadata or {}), "version": version})
                    (folder / _MODEL_CARD).write_text(card, encoding="utf-8")
                    record = {
                        "version": version,
                        "bundle_fingerprint": fingerprint,
                        "added_at": datetime.now(UTC).isoformat(timespec="microseconds"),
                        "run_id": run_id,
                    }
                    write_json(folder / "record.json", record)
            # It may have been there before, or in an object store have been added meanwhile.
            self._refuse_other_content(version, fingerprint)
        return version

    def verify(self, version: str) -> None:
        """Compare a version's bundle with what was added.

        Raises:
            ArtifactBroken: there is no such version, or its files were changed since.
        """
        recorded = self._known_record(version)["bundle_fingerprint"]
        _check_bundle(self._versions.folder(version, fresh=True), version, recorded)

    def promote(
        self, version: str, *, expected_champion: str | None, run_id: str | None = None
    ) -> bool:
        """Make a registered version the champion.

        Args:
            version: the new champion.
            expected_champion: the champion that the candidate was judged against, None for none;
                if another run has promoted something since, that judgement no longer holds.
            run_id: who promotes it.

        Returns:
            True if the pointer moved, False if the version was the champion already.

        Raises:
            RegistryConflict: the champion isn't the expected one.
            ArtifactBroken: there is no such version, or its files were changed.
        """
        with self._root.alone(self._lock_timeout_seconds):
            self.verify(version)
            champion = self._pointer.read()
            present = champion.version if champion else None
            if present == version:
                return False
            if present != expected_champion:
                raise RegistryConflict(
                    f"expected the champion {expected_champion or 'none'}, got "
                    f"{present or 'none'}: another run moved it meanwhile; evaluate {version} "
                    "against the new champion and judge again"
                )
            rolled_back = champion.rolled_back if champion else ()
            try:
                self._pointer.move(
                    "promote",
                    version,
                    before=champion,
                    previous=(*champion.previous, champion.version) if champion else (),
                    rolled_back=tuple(one for one in rolled_back if one != version),
                    run_id=run_id,
                )
            except RegistryConflict:
                if self.champion() != version:
                    raise
                return False  # another try of the same step was faster
        return True

    def rollback_target(self) -> str:
        """Return the version that a rollback would make the champion.

        Raises:
            NoChampion: nothing has been promoted yet, or there is no earlier champion.
        """
        return self._to_roll_back()[1]

    def rollback(self, *, run_id: str | None = None) -> Move:
        """Put the previous champion back, and remember that the present one was rolled back.

        Returns:
            The move: from which version to which.

        Raises:
            NoChampion: nothing has been promoted yet, or there is no earlier champion.
            ArtifactBroken: the previous champion's files were changed or removed.
        """
        with self._root.alone(self._lock_timeout_seconds):
            champion, target = self._to_roll_back()
            self.verify(target)
            others = (one for one in champion.rolled_back if one != champion.version)
            return self._pointer.move(
                "rollback",
                target,
                before=champion,
                previous=champion.previous[:-1],
                rolled_back=(*others, champion.version),
                run_id=run_id,
            )

    def _to_roll_back(self) -> tuple[Champion, str]:
        """Return the champion and the version before it."""
        champion = self._pointer.read()
        if champion is None:
            raise NoChampion(
                f"expected a champion in {self._root.uri} to roll back, found none; nothing has "
                "been promoted yet"
            )
        if not champion.previous:
            raise NoChampion(
                f"expected a champion before {champion.version}, found none: it is the first "
                "one; promote another version instead"
            )
        return champion, champion.previous[-1]

    def _record(self, version: str) -> dict[str, Any] | None:
        """Return a version's record; None where there is no such version."""
        record = json_in_folder(self._versions, version, "record.json")
        if record is None:
            return None
        if not isinstance(record, dict) or not record.keys() >= _RECORDED:
            raise ArtifactBroken(
                f"expected {', '.join(sorted(_RECORDED))} in {self._versions.uri}/{version}/"
                "record.json, got something else; restore it, or remove the folder and train again"
            )
        return record

    def _known_record(self, version: str) -> dict[str, Any]:
        record = self._record(version) if _VERSION.fullmatch(version) else None
        if record is None:
            known = ", ".join(self.versions()) or "none"
            raise ArtifactBroken(
                f"expected a registered version, got {version!r}; registered are: {known}"
            )
        return record

    def _refuse_other_content(self, version: str, fingerprint: str) -> None:
        recorded = self._known_record(version)["bundle_fingerprint"]
        if recorded != fingerprint:
            raise RegistryConflict(
                f"expected version {version} to hold the bundle {recorded[:16]}, got another one "
                f"({fingerprint[:16]}); versions are append-only: give the new bundle its own"
            )


def _check_bundle(folder: Path, version: str, recorded: str) -> None:
    found = fingerprint_of_folder(folder / "bundle")
    if found != recorded:
        raise ArtifactBroken(
            f"expected the bundle of version {version} to have the fingerprint "
            f"{recorded[:16]}, got {found[:16]}; its files were changed after it was added: "
            "restore them, or train again"
        )


def _copy_bundle(source: Path, target: Path, fingerprint: str) -> None:
    shutil.copytree(source, target)
    if fingerprint_of_folder(target) != fingerprint:
        raise ArtifactBroken(
            f"expected the bundle in {source} to stay as it is while it is copied, but it changed; "
            "add it again when its writer has finished"
        )
