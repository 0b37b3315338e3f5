"""What may be wrong with predictions: one message for each kind of mistake."""

from __future__ import annotations

from collections import Counter

from ambiseg.errors import AmbisegError, counted
from ambiseg.labels import LabelSpace
from ambiseg.predictions import UnfitError

MISTAKES = {
    "sizes": ("have another size than the annotations", "resample the masks to the size of the annotations"),
    "axes": (
        "have another size than the annotations",
        "check the order of axes, (images, samples, height, width), or resample the masks to the size of the annotations",
    ),
    "classes": ("hold numbers that are no classes of the data", "number the classes {classes}"),
    "greys": (
        "hold numbers that are no classes of the data",
        "number the classes {classes}, or divide by 255 if they are probabilities",
    ),
    "other classes": (
        "have other classes than the data",
        "make the mask sets with the classes {classes}",
    ),
    "fractions": (
        "hold fractions, which say nothing of {count} classes",
        "save label maps, or probabilities of all classes as (samples, classes, height, width)",
    ),
    "channels": (
        "hold probabilities of another number of classes",
        "save a channel for each class, in the order {classes}, as (samples, classes, height, width)",
    ),
    "class sums": (
        "hold probabilities of classes whose sum is not 1",
        "pass logits through a softmax over the classes",
    ),
    "range": (
        "hold probabilities outside of 0 to 1",
        "clip or correct the values",
    ),
    "logits": (
        "hold probabilities outside of 0 to 1",
        "pass logits through a {link}",
    ),
    "nan": ("hold NaN or infinite values", "correct the values"),
    "weight sums": ("have weights whose sum is not 1", "divide the weights of an image by their sum"),
    "weights": (
        "have weights that are no probabilities",
        "give each mask its probability, from 0 to 1",
    ),
    "weighted masks": (
        "have weights that do not belong to their masks",
        "give every mask one weight, 0 where it shall not count, and remove weights without a mask",
    ),
    "lossy": ("are .jpg only, which is lossy", "save them as .png"),
    "empty": (
        "are missing from their folders",
        "add them, or remove the folders and leave these images out (--allow-missing)",
    ),
    "files": ("cannot be read", ""),
}
"""What may be wrong with predictions of images, and what to do; words in braces are those of the label space."""
_MOST = 12
"""Classes that a remedy lists."""


class Mistakes:
    """What is wrong with predictions, one message for each kind.

    Args:
        labels: the classes of the data, for remedies.
    """

    def __init__(self, labels: LabelSpace) -> None:
        self.found: dict[tuple[str, str], list[str]] = {}
        self._at: tuple[str, str] = ("", "")
        named = [f"{i} {name}" for i, name in enumerate(labels.names)]
        if len(named) > _MOST:
            named = [*named[: _MOST - 1], f"... {named[-1]}"]
        void = "" if labels.ignore_value is None else f" (void: {labels.ignore_value})"
        self._words = {
            "classes": ", ".join(named) + void,
            "count": str(labels.classes),
            "link": "sigmoid" if labels.is_binary else "softmax",
        }

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
            what, remedy = (text.format(**self._words) for text in MISTAKES[kind])
            shown = ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
            end = f": {remedy}" if remedy else ""
            sentences.append(f"{path}: the masks of {counted(len(texts), 'image')} {what}, {shown}{end}")
        raise AmbisegError("; ".join(sentences))


def check_fit(count: int, ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    """Raise `UnfitError` where masks, ``count`` of them, and annotations have other sizes."""
    if tuple(ours) != tuple(theirs):
        swapped = not Counter(theirs) - Counter((count, *ours))
        found = f"{counted(count, 'mask')} of {ours[0]}x{ours[1]}" if swapped else f"{ours[0]}x{ours[1]}"
        raise UnfitError("axes" if swapped else "sizes", f"{found}, annotated {theirs[0]}x{theirs[1]}")
