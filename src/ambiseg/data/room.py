"""Whether the rest of a data set that is being written fits on the disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from pathlib import Path

from ambiseg.atomic_write import check_space, tree_size


class RoomCheck:
    """Stops the writing of a data set early where the disk has no room for all of it.

    The bytes of the first images, as they are stored, tell how many the others will need.

    Args:
        partial: the file or folder that is being written.
        target: what it will be called.
        splits: samples per split; where a length is not known, nothing is checked.
    """

    AT = (2, 16, 256)
    """Images after which the need is estimated."""

    def __init__(self, partial: Path, target: Path, splits: Mapping[str, Iterable[object]]) -> None:
        self.partial, self.target, self.done = partial, target, 0
        known = all(isinstance(samples, Sized) for samples in splits.values())
        self.total = (
            sum(len(samples) for samples in splits.values() if isinstance(samples, Sized)) if known else 0
        )

    @property
    def due(self) -> bool:
        """Whether the next call of `wrote_one` estimates."""
        return self.done + 1 in self.AT and self.total > self.done + 1

    def wrote_one(self) -> None:
        """Count an image that is on the disk.

        Raises:
            AmbisegError: the others do not fit.
        """
        due = self.due
        self.done += 1
        if due:
            each = tree_size(self.partial) / self.done
            check_space(
                self.target.parent, round(each * (self.total - self.done)), f"the rest of {self.target}"
            )
