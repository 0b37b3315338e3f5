"""What may be wrong with predictions: one message for each kind of mistake."""

from __future__ import annotations

from ambiseg.errors import AmbisegError
from ambiseg.predictions import UnfitError

MISTAKES = {
    "sizes": ("have another size than the annotations", "resample the masks to the size of the annotations"),
    "classes": ("hold numbers that are no classes of the data", "number the classes as dataset.yaml does"),
    "weights": (
        "have weights that are no probabilities of sum 1",
        "divide the weights of an image by their sum",
    ),
    "range": ("hold probabilities outside of 0 to 1", "pass logits through a sigmoid, and mend NaN"),
    "files": ("cannot be read", "mend these files"),
}
"""What may be wrong with predictions of images, and what to do."""


class Mistakes:
    """What is wrong with predictions, one message for each kind."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], list[str]] = {}
        self._at: tuple[str, str] = ("", "")

    def of(self, path: str, sample_id: str) -> Mistakes:
        """A context whose mistakes are those of one image."""
        self._at = path, sample_id
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, AmbisegError):
            return False
        path, sample_id = self._at
        which = error.kind if isinstance(error, UnfitError) else "files"
        text = str(error) if which == "files" else f"{sample_id!r} ({error})"
        self.found.setdefault((path, which), []).append(text)
        return True

    def check(self) -> None:
        """Raise `AmbisegError` with all that was wrong."""
        if not self.found:
            return
        sentences = []
        for (path, kind), texts in self.found.items():
            what, remedy = MISTAKES[kind]
            shown = ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
            sentences.append(f"{path}: the masks of {len(texts)} images {what}, {shown}: {remedy}")
        raise AmbisegError("; ".join(sentences))


def check_fit(ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    if tuple(ours) != tuple(theirs):
        raise UnfitError("sizes", f"{ours[0]}x{ours[1]}, annotated {theirs[0]}x{theirs[1]}")
