"""What a run keeps of its predictions: the values that were fitted on a validation split, and their file.

`ambiseg.engine.filter_choice` chooses them, `PredictSettings.for_run` reads them. They stand in ``filter.json`` of the
run folder, with the figures that they were chosen by.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ambiseg.atomic_write import write_json
from ambiseg.defaults import DUPLICATE_IOU, FOREGROUND_THRESHOLD, SCORE_THRESHOLD
from ambiseg.engine.run_folder import FILTER
from ambiseg.errors import AmbisegError
from ambiseg.json_files import read_mapping
from ambiseg.nested_settings import from_values


@dataclass(frozen=True)
class FilterValues:
    """The values of a filter; by default those of a run without a fitted one."""

    score_threshold: float | None = SCORE_THRESHOLD
    """Masks with a lower selection score are dropped; None drops none."""
    probability_threshold: float | None = None
    """Masks with a lower probability are dropped; None drops none."""
    duplicate_iou: float | None = DUPLICATE_IOU
    """Of masks more alike than this one stays; 1 for identical ones, None keeps all."""
    foreground_threshold: float = FOREGROUND_THRESHOLD
    """Pixels with a higher probability are foreground (binary labels)."""
    temperature: float = 1.0
    """Probabilities are taken to the power of one over this and normalised."""
    top: int | None = None
    """So many masks stay at most, those that represent all of them best; None keeps all."""

    def problems(self) -> list[str]:
        """Values that make no sense, one sentence each.

        Example:
            >>> FilterValues(temperature=0.0).problems()
            ['temperature must be above 0, received 0.0']
        """
        shares = ("score_threshold", "probability_threshold", "duplicate_iou", "foreground_threshold")
        given = {name: value for name in shares if (value := getattr(self, name)) is not None}
        found = [
            f"{name} is 0 to 1, received {value}" for name, value in given.items() if not 0 <= value <= 1
        ]
        if not 0 < self.temperature < math.inf:
            found.append(f"temperature must be above 0, received {self.temperature}")
        if self.top is not None and self.top < 1:
            found.append(f"top is 1 or more, received {self.top}")
        return found

    def words(self) -> str:
        """The values in words.

        Example:
            >>> FilterValues(0.2, None, 0.95).words()
            'masks above an IoU of 0.95 merged, scores below 0.2 dropped'
        """
        iou = self.duplicate_iou
        merged = (
            "identical masks merged" if iou == 1 else f"masks above an IoU of {iou:g} merged" if iou else ""
        )
        parts = [merged] * bool(merged)
        if self.score_threshold is not None:
            parts.append(f"scores below {self.score_threshold:g} dropped")
        if self.probability_threshold is not None:
            parts.append(f"probabilities below {self.probability_threshold:g} dropped")
        if self.top is not None:
            parts.append(f"the {self.top} that represent all of them")
        if self.foreground_threshold != FOREGROUND_THRESHOLD:
            parts.append(f"foreground above {self.foreground_threshold:g}")
        if self.temperature != 1:
            parts.append(f"temperature {self.temperature:g}")
        return ", ".join(parts) or "nothing merged or dropped"


@dataclass(frozen=True)
class FittedFilter:
    """The filter of a run, and how it was chosen.

    Attributes:
        values: what is merged and dropped.
        images: images that it was chosen on; 0 where they were too few.
        predicted: masks that the model was asked for, per image; 0 where none was.
        message: one sentence for the user.
        data, split, seed: where the images came from, and the seed of sampling methods.
        tolerance: largest loss of energy score against the best candidate.
        spread: mean over images of d(Y, Y), so that GED^2 is twice the energy score minus this.
        curve: one entry for each candidate: ``step`` (filter, foreground or temperature), the values, ``masks`` per
            image, ``energy_score``, ``coverage`` (HM IoU*), ``worse_by`` (mean paired difference to the best of its step),
            ``standard_error`` of it, and whether it was ``chosen``.
    """

    values: FilterValues
    images: int
    predicted: int
    message: str
    data: str = ""
    split: str = ""
    seed: int = 0
    tolerance: float = 0.0
    spread: float = 0.0
    curve: tuple[dict[str, Any], ...] = ()

    def save(self, run: Path) -> None:
        """Write ``filter.json`` into a run folder."""
        write_json(run / FILTER, asdict(self))

    @classmethod
    def load(cls, run: Path) -> FittedFilter | None:
        """Read ``filter.json`` of a run folder; None where there is none.

        Raises:
            AmbisegError: the file is damaged.
        """
        path = run / FILTER
        if not path.exists():
            return None
        try:
            found = from_values(cls, read_mapping(path), "the filter")
            problems = found.values.problems()
        except AmbisegError as error:
            problems = [str(error)]
        if problems:
            raise AmbisegError(
                f"{path} cannot be used ({problems[0]}): write it again with 'ambiseg calibrate-filter {run}', or remove it"
            )
        return found
