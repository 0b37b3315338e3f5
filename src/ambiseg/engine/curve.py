"""The training curve on disk: rows are appended; where a column is new, the file is written anew, whole or not at all."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from ambiseg.atomic_write import replacing_file
from ambiseg.errors import AmbisegError


class CurveLogger(CSVLogger):
    """Lightning's logger to ``metrics.csv``, but a kill while a column is added loses no row."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of the file."""
        if self._experiment is None:
            self._fs.makedirs(self.root_dir, exist_ok=True)
            self._experiment = _CurveWriter(log_dir=self.log_dir)
        return self._experiment


class _CurveWriter(ExperimentWriter):
    def save(self) -> None:
        path = Path(self.metrics_file_path)
        keys = sorted({*self.metrics_keys, *(name for row in self.metrics for name in row)})
        if keys != self.metrics_keys and path.is_file():
            with open(path, newline="", encoding="utf-8") as before:
                rows = list(csv.DictReader(before))
            with (
                replacing_file(path) as partial,
                open(partial, "w", newline="", encoding="utf-8") as partial_file,
            ):
                writer = csv.DictWriter(partial_file, fieldnames=keys)
                writer.writeheader()
                writer.writerows(rows)
            self.metrics_keys = keys
        super().save()


def training_curve(run: str | Path) -> list[dict[str, float]]:
    """Rows of the training curve, all sessions of the run in order of steps.

    Raises:
        AmbisegError: a file of the curve is damaged.
    """
    rows: dict[int, dict[str, float]] = {}
    for path in sorted(
        Path(run).glob("logs/version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1])
    ):
        try:
            with open(path, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    values = {str(name): float(value) for name, value in row.items() if value}
                    rows.setdefault(int(values["step"]), {}).update(values)
        except (ValueError, OverflowError, KeyError, TypeError, csv.Error) as error:
            line = " ".join(str(error).split())[:200]
            raise AmbisegError(
                f"{path} is no training curve ({line}): restore the file, or remove it"
            ) from error
    return [rows[step] for step in sorted(rows)]
