"""The journal of a study: the file of JSON lines in which Optuna keeps trials, values and reports.

Optuna is installed on request (``pip install 'ambiseg[tune]'``) and imported when a study is opened.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from ambiseg import owned_files
from ambiseg.errors import AmbisegError

JOURNAL = "journal.log"
NAME = "ambiseg"
"""Of the study in its journal."""
Pruner = Literal["none", "median"]


def optuna() -> Any:
    """The package, quiet.

    Raises:
        AmbisegError: it is not installed.
    """
    try:
        import optuna as package
    except ImportError as error:
        raise AmbisegError("a search needs the package optuna: pip install 'ambiseg[tune]'") from error
    package.logging.set_verbosity(package.logging.ERROR)
    return package


def open_study(folder: Path, higher_is_better: bool) -> Any:
    """The study of a folder, a new one where there is none; by the only process that works in the folder.

    Raises:
        AmbisegError: Optuna is missing, or the journal is damaged.
    """
    package, path = optuna(), folder / JOURNAL
    owned_files.add_path(path)
    _mend(path)
    try:
        return package.create_study(
            study_name=NAME,
            storage=_storage(package, path),
            direction="maximize" if higher_is_better else "minimize",
            load_if_exists=True,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise AmbisegError(f"{path} is damaged ({error}): restore it, or begin with another --out") from error


def _mend(path: Path) -> None:
    """Remove what a killed process left: a half-written line, and the lock of the journal."""
    for left in path.parent.glob(f"{path.name}.lock*"):
        left.unlink(missing_ok=True)
    if path.is_file():
        with open(path, "rb+") as stream:
            stream.truncate(stream.read().rfind(b"\n") + 1)


def _storage(package: Any, path: Path) -> Any:
    journal = package.storages.journal
    lock = journal.JournalFileOpenLock(str(path))
    return package.storages.JournalStorage(journal.JournalFileBackend(str(path), lock))


def sampler(seed: int, number: int) -> Any:
    """Optuna's tree-structured Parzen estimator for one trial: a study that was killed goes on as it would have."""
    digest = hashlib.blake2b(f"{seed},{number}".encode(), digest_size=4).digest()
    return optuna().samplers.TPESampler(seed=int.from_bytes(digest, "big"))


def open_trial(folder: Path, trial: int, pruner: Pruner) -> Any:
    """A trial that has begun, by its number in the journal, for reports.

    Args:
        folder: of the study.
        trial: the number.
        pruner: "median" ends it where its best validation is worse than the median of at least five trials at the same
            validation.
    """
    package = optuna()
    pruners = package.pruners
    study = package.load_study(
        study_name=NAME,
        storage=_storage(package, folder / JOURNAL),
        sampler=package.samplers.RandomSampler(),
        pruner=pruners.MedianPruner(n_startup_trials=5) if pruner == "median" else pruners.NopPruner(),
    )
    return package.trial.Trial(study, trial)
