"""Every error that needledrop raises on purpose.

::

    NeedledropError
    ├── InputError              what came from outside is not what the contract promises
    │   ├── PlaysRejected       a plays file is unreadable, or too many of its rows are broken
    │   ├── TracksRejected      a tracks file is unreadable, or lacks what is asked of it
    │   ├── DatasetRejected     a published dataset's file is missing, unreadable or broken
    │   ├── TagsRejected        a tags file is unreadable, or too many of its rows are broken
    │   ├── ClipRejected        a clip is no audio, too short, too long, silent or empty
    │   └── ConfigRejected      an unknown key, a wrong type, a value out of range
    │       └── StoreMissing    there is no feature store where one is to be read
    ├── SplitLeakage            a held-out song (or its artist) is among the training songs
    ├── ShapeMismatch           an array does not have the axes that were promised
    ├── FrontendMismatch        features were made by another front end than the encoder's
    ├── FactorsRejected         factors of a wrong dimension, not finite, or older than the stored
    ├── ArtifactBroken          an artifact is missing, incomplete or not what its fingerprint says
    ├── BundleRefused           a bundle is whole, but what it answers to canned clips is wrong
    ├── DiskFull                a disk has no space left for what is to be written
    ├── NoChampion              nothing has been promoted yet
    ├── DeployFailed            a cluster refused a version, or it did not become ready or failed
    ├── EngineFailed            Spark, or a job on a cluster, is missing, refused, or gave up
    ├── RegistryConflict        another run changed the registry in between
    └── StoreUnreachable        a store (object store, database) doesn't answer, or refuses

A message says what was expected, what came, and what to do next, in one sentence or two.
"""


class NeedledropError(Exception):
    """The root: catch this to catch everything that needledrop raises on purpose."""


class InputError(NeedledropError):
    """What came from outside is not what the data contract promises."""


class PlaysRejected(InputError):
    """A plays file is unreadable, or too many of its rows are broken."""


class TracksRejected(InputError):
    """A tracks file is unreadable, or lacks a column or a value that is asked of it."""


class DatasetRejected(InputError):
    """A file of a published dataset is missing, unreadable, or too many of its lines are broken."""


class TagsRejected(InputError):
    """A tags file is unreadable, lacks a column, or too many of its rows are broken."""


class ClipRejected(InputError):
    """A clip can't be used.

    Attributes:
        kind: a short machine-readable reason, fit for a metric's label: one of ``empty``,
            ``not_audio``, ``corrupt``, ``too_short``, ``too_long``, ``inflated``, ``silent``,
            ``unsupported``, ``unreadable``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type["ClipRejected"], tuple[str, str]]:
        # Worker processes send this error home by pickle, which would otherwise lose `kind`.
        return (type(self), (self.kind, str(self)))


class ConfigRejected(InputError):
    """A configuration has an unknown key, a wrong type or a value out of range."""


class StoreMissing(ConfigRejected):
    """There is no feature store where one is to be read."""


class SplitLeakage(NeedledropError):
    """A held-out song, or its artist where the split promises so, is among the training songs."""


class ShapeMismatch(NeedledropError):
    """An array does not have the axes that were promised."""


class FrontendMismatch(NeedledropError):
    """Features were made by another front end than the one that the encoder was trained on."""


class FactorsRejected(NeedledropError):
    """Factors have a wrong dimension, are not finite, or are older than what is stored."""


class ArtifactBroken(NeedledropError):
    """An artifact is missing, incomplete, or its content is not what its fingerprint says."""


class BundleRefused(NeedledropError):
    """A bundle is whole, but what it answers to canned clips is wrong: it must not serve."""


class DiskFull(NeedledropError):
    """A disk, or what may be used of it, has no space for what is to be written."""


class NoChampion(NeedledropError):
    """The registry has no champion: nothing has been promoted yet."""


class RegistryConflict(NeedledropError):
    """Another run changed the registry in between; nothing was overwritten."""


class DeployFailed(NeedledropError):
    """A cluster refused a version, or the version did not become ready or failed its check."""


class EngineFailed(NeedledropError):
    """What work was handed to (Spark, a job on a cluster) is missing, refused it, or gave up."""


class StoreUnreachable(NeedledropError):
    """A store doesn't answer after several tries, or refuses; nothing half-written is read."""
