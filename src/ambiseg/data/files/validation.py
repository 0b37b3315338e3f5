"""What an image, a mask, a set of weights and a name must satisfy, whichever file they come from or go to.

The readers, the writers and the check of a whole data set share these checks, so what is written can be read,
and what the check passes can be trained on. Each function returns the value in its one canonical form or says
what is wrong as a `FileProblem`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError, counted, listed
from ambiseg.labels import LabelSpace

ROUNDING = 1e-3
"""How far numbers of a mask may be from integers, such as those that a NIfTI file scales."""

WEIGHT_TOLERANCE = 1e-3
"""How far the weights of one image may be from summing to 1."""

IMAGE_TYPES = ("uint8", "uint16", "int16", "float32")
"""Number types that images keep; any other becomes the smallest of these that holds it, else float32."""

_BLOCK = 1 << 20
_SHOWN = 6  # values and names in a message
_MOST_NEW = 12  # classes that a message suggests


class FileProblem(AmbisegError):
    """One thing wrong with one file: where, what, what to do; and numbers of a mask that are no classes.

    Example:
        >>> str(FileProblem("a.png", "the file is empty", "copy it again"))
        'a.png: the file is empty: copy it again'
    """

    def __init__(
        self, file: str | PathLike[str], problem: str, remedy: str, values: tuple[int, ...] = ()
    ) -> None:
        super().__init__(str(file), problem, remedy)
        self.file, self.problem, self.remedy, self.values = str(file), problem, remedy, values

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}: {self.remedy}"


def check_name(name: str, what: str) -> None:
    """Raise `AmbisegError` unless ``name`` is safe as the name of one file on any system.

    Example:
        >>> check_name("scan-7", "id")
    """
    escapes = not name or name.startswith(".") or any(c in "/\\" or not c.isprintable() for c in name)
    if escapes or name != name.strip() or len(name.encode("utf-8", "replace")) > 200:
        raise AmbisegError(
            f"{what} {name!r} cannot name a file: use up to 200 letters, digits, '-', '_', no leading dot"
        )


def canonical_image(image: NDArray[Any], file: str | PathLike[str]) -> NDArray[np.generic]:
    """An image ``(C, H, W)`` in one of `IMAGE_TYPES`, contiguous, every value finite; else `FileProblem`."""
    if image.ndim != 3 or 0 in image.shape:
        raise FileProblem(
            file,
            f"the array has shape {image.shape}, not (channels, height, width)",
            "save one 2-d image per file",
        )
    if image.shape[0] >= 32 and image.shape[2] in (1, 3, 4):
        raise FileProblem(
            file, f"the array has shape {image.shape}, channels last", "save it as (channels, height, width)"
        )
    name = image.dtype.name
    if image.dtype.kind not in "buif":
        raise FileProblem(file, f"values of type {name} are not an image", "save integers or floats")
    if name not in IMAGE_TYPES:
        name = {"bool": "uint8", "int8": "int16"}.get(name, "float32")
    with np.errstate(over="ignore"):
        image = np.ascontiguousarray(image, dtype=name)
    if name == "float32" and not np.isfinite(image).all():
        bad = int((~np.isfinite(image)).sum())
        raise FileProblem(
            file, f"{bad} values are NaN or infinite", "replace them by a finite number, such as 0"
        )
    return image


def canonical_mask(mask: NDArray[Any], file: str | PathLike[str], rules: MaskRules) -> NDArray[np.uint8]:
    """A label map ``(H, W)`` as uint8, else `FileProblem`.

    Axes of length 1 before and after height and width go, and numbers within `ROUNDING` of an integer become
    it. Of two classes, {0, 255} and, in 16 bits, {0, 65535} become {0, 1}, unless 255 is ignored; numbers above
    the threshold of the rules become 1. Grey levels that are the colours of classes become the classes.
    """
    while mask.ndim > 2 and 1 in (mask.shape[-1], mask.shape[0]):
        mask = mask[..., 0] if mask.shape[-1] == 1 else mask[0]
    if mask.ndim != 2 or mask.size == 0:
        raise FileProblem(
            file, f"the mask has shape {mask.shape}, not (height, width)", "save one 2-d label map"
        )
    if mask.dtype.kind not in "buif":
        raise FileProblem(file, f"values of type {mask.dtype.name} are not classes", "save integers")
    most = mask.max()
    smooth = most > 1 or (rules.threshold is not None and rules.threshold < 1 and not np.isnan(most))
    if rules.threshold is not None and rules.two_classes and smooth:
        above: NDArray[Any] = mask > rules.threshold
        mask = above if rules.ignore_value is None else np.where(mask == rules.ignore_value, mask, above)
    if mask.dtype.kind == "f":
        mask = _whole_numbers(mask, file)
    low, high = mask.min(), mask.max()
    if high in (255, 65535) and high != rules.ignore_value and rules.two_classes:
        dark = mask == 0
        if bool((dark | (mask == high)).all()):
            _require_dark_background(file, rules)
            mask, low, high = ~dark, 0, 1
    if low < 0 or high > 255:
        raise FileProblem(file, f"the mask holds values from {low} to {high}", "number the classes 0 to 254")
    mask = np.ascontiguousarray(mask, dtype=np.uint8)
    return mask if rules.is_class(int(high)) else _from_greys(mask, rules)


def _whole_numbers(mask: NDArray[Any], file: str | PathLike[str]) -> NDArray[Any]:
    whole: NDArray[Any] = np.round(mask)
    if not (np.isfinite(mask).all() and (np.abs(mask - whole) <= ROUNDING).all()):
        raise FileProblem(
            file,
            "the mask holds fractions or NaN",
            "save the class numbers, not probabilities, or add 'mask_threshold: 0.5' to dataset.yaml",
        )
    return whole


def _require_dark_background(file: str | PathLike[str], rules: MaskRules) -> None:
    """Refuse black and white where dataset.yaml gives these colours to the other classes."""
    greys = rules.greys
    if greys.get(0, 0) != 0 or greys.get(255, 1) != 1:
        raise FileProblem(
            file,
            f"it is black and white, and dataset.yaml gives black to class {greys.get(0, 0)} and white to class"
            f" {greys.get(255, 1)}",
            "save class numbers 0 and 1",
        )


def _from_greys(mask: NDArray[np.uint8], rules: MaskRules) -> NDArray[np.uint8]:
    """Classes of grey levels, if all of them are colours of classes; else the same numbers."""
    table = np.zeros(256, np.uint8)
    present = np.flatnonzero(value_counts(mask)).tolist()
    if not all(value in rules.greys or value == rules.ignore_value for value in present):
        return mask
    table[present] = [rules.greys.get(value, value) for value in present]
    return table[mask]


def value_counts(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each of 0..255 occurs, ``(256,)``; by blocks, since counting widens values to 64 bits."""
    flat, total = values.ravel(), np.zeros(256, np.int64)
    for start in range(0, flat.size, _BLOCK):
        total += np.bincount(flat[start : start + _BLOCK], minlength=256)
    return total


def mask_problems(
    mask: NDArray[np.uint8],
    size: tuple[int, ...] | None,
    labels: LabelSpace | None,
    file: str | PathLike[str],
) -> list[FileProblem]:
    """All that is wrong between a mask, the ``(H, W)`` of its image and the classes; None is not checked."""
    found = []
    if size is not None and mask.shape != tuple(size):
        found.append(
            FileProblem(
                file,
                f"the mask is {mask.shape[0]} high, {mask.shape[1]} wide but its image {size[0]} x {size[1]}",
                "draw or resample the mask at the size of its image",
            )
        )
    if labels is not None and mask.size and mask.max() >= labels.classes:
        counts = value_counts(mask)
        wrong = [
            v for v in np.flatnonzero(counts).tolist() if v >= labels.classes and v != labels.ignore_value
        ]
        if wrong:
            found.append(_wrong_values(wrong, counts, labels, file))
    return found


def _wrong_values(
    wrong: list[int], counts: NDArray[np.int64], labels: LabelSpace, file: str | PathLike[str]
) -> FileProblem:
    """What is wrong with a mask that holds numbers that are no classes, and what to do; by their likely
    cause."""
    if wrong == [255] and labels.ignore_value is None:
        return FileProblem(
            file,
            f"the mask holds 255 beside the classes 0..{labels.classes - 1}, and dataset.yaml has no ignore_value",
            "add 'ignore_value: 255' to dataset.yaml if 255 marks pixels to leave out, else correct the mask",
        )
    between = int(counts[1 : wrong[-1]].sum())
    if labels.is_binary and len(wrong) > 2 and between < counts[0] + counts[wrong[-1]]:
        return FileProblem(
            file,
            f"{between / counts.sum():.1%} of the mask's pixels are grey levels between 0 and {wrong[-1]}: its"
            " borders are smoothed",
            f"save it without smoothing, or add 'mask_threshold: {wrong[-1] // 2}' to dataset.yaml",
        )
    told = wrong_values("the mask holds", wrong, labels.names, labels.ignore_value)
    return FileProblem(file, *told, tuple(wrong))


def wrong_values(
    who: str, wrong: Sequence[int], names: Sequence[str], ignore_value: int | None
) -> tuple[str, str]:
    """What is wrong where masks hold numbers that are no classes, and what to do.

    Args:
        who: such as ``the mask holds``.
        wrong: the numbers, sorted.
        names: the classes.
        ignore_value: the number that may stand beside them.
    """
    shown = listed(wrong) if len(wrong) <= _SHOWN else f"{', '.join(map(str, wrong[:_SHOWN]))} and others"
    ignored = "" if ignore_value is None else f" and {ignore_value} is ignored"
    known = f" ({', '.join(names)})" if len(names) <= _SHOWN else ""
    problem = f"{who} {shown}, but the classes are 0..{len(names) - 1}{known}{ignored}"
    if wrong[-1] >= _MOST_NEW:
        return (
            problem,
            "correct the masks, or declare the classes, their colors or ignore_value in dataset.yaml",
        )
    more = [*names, *(f"class-{i}" for i in range(len(names), wrong[-1] + 1))]
    return (
        problem,
        f"write 'classes: [{', '.join(more)}]' in dataset.yaml if these are classes, else correct the masks",
    )


def weight_problems(
    weights: Mapping[str, float], annotators: Sequence[str], file: str | PathLike[str], sample_id: str
) -> list[FileProblem]:
    """All that is wrong with the stated weights of one image; a NaN weight counts as reported elsewhere.

    Args:
        weights: stated weight per annotator; empty means that none is stated.
        annotators: those who have a mask.
        file: where the weights stand.
        sample_id: the image.
    """
    if not weights:
        return []
    found = [
        FileProblem(
            file, f"id {sample_id!r} has a weight for {name!r} but no mask", "remove the row or add the mask"
        )
        for name in weights
        if name not in annotators
    ]
    found += [
        FileProblem(
            file, f"id {sample_id!r} has no weight for {name!r}", "add its row, 0 if it shall not count"
        )
        for name in annotators
        if name not in weights
    ]
    values = [w for name, w in weights.items() if name in annotators]
    if any(w < 0 for w in values):
        found.append(
            FileProblem(file, f"id {sample_id!r} has a negative weight", "state probabilities, 0 to 1")
        )
    total = sum(values)
    if not found and abs(total - 1) > WEIGHT_TOLERANCE:
        found.append(
            FileProblem(
                file, f"the weights of id {sample_id!r} sum to {total:.4g}, not 1", "divide them by their sum"
            )
        )
    return found


def canonical_weights(weights: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    """Weights ``(N,)`` as stated; what rounding took from their sum of 1 is given back.

    Example:
        >>> float(canonical_weights([0.333, 0.333, 0.333]).sum())
        1.0
    """
    values = np.asarray(weights, dtype=np.float64)
    total = values.sum()
    return values if abs(total - 1) <= 1e-9 else values / total


def canonical_sample(sample: Sample, info: DatasetInfo, where: str = "") -> Sample:
    """A sample as it will be read again: canonical types, masks in the order of the annotators' names.

    Masks that all have an empty annotator name are numbered. ``where`` is what messages call it.

    Raises:
        AmbisegError: an unsafe or doubled name, a mask of another size, an unknown class, wrong weights.
    """
    check_name(sample.id, "id")
    where = where or f"sample {sample.id!r}"
    image = canonical_image(np.asarray(sample.image), where)
    if info.channels and len(info.channels) != image.shape[0]:
        raise channel_problem(where, image.shape[0], info.channels)
    masks, count = np.asarray(sample.masks), len(sample.masks)
    weights = np.asarray(sample.weights, dtype=np.float64)
    names = sample.annotators
    if count == 0:
        raise FileProblem(where, "it has no mask", "give at least one mask per image")
    if not any(names):
        names = tuple(f"{i:0{len(str(count - 1))}d}" for i in range(len(names)))
    if len(names) != count or weights.shape != (count,) or len(set(names)) != count:
        raise FileProblem(
            where,
            f"{count} masks, {len(set(names))} different annotators, weights of shape {weights.shape}",
            "give one annotator name and one weight per mask",
        )
    for name in names:
        check_name(name, f"{where}: annotator")
    stated = dict(zip(names, weights.tolist(), strict=True))
    found = weight_problems(stated, names, where, sample.id)
    if not np.isfinite(weights).all():
        found.append(FileProblem(where, "a weight is NaN or infinite", "state probabilities, 0 to 1"))
    order = sorted(range(count), key=lambda i: names[i])
    rules = info.mask_rules
    layers = [canonical_mask(masks[i], f"{where}, mask {names[i]!r}", rules) for i in order]
    for i, layer in zip(order, layers, strict=True):
        found += mask_problems(layer, image.shape[1:], info.labels, f"{where}, mask {names[i]!r}")
    if found:
        raise found[0]
    return Sample(
        sample.id, image, np.stack(layers), canonical_weights(weights[order]), tuple(names[i] for i in order)
    )


def channel_problem(file: str | PathLike[str], found: int, names: Sequence[str]) -> FileProblem:
    """The problem that an image has another number of channels than dataset.yaml names."""
    return FileProblem(
        file,
        f"the image has {counted(found, 'channel')} but dataset.yaml names {len(names)}",
        "correct one of the two",
    )


def add_to_digest(total: hashlib._Hash, sample: Sample) -> None:
    """Add id, image, masks and weights of a canonical sample to a SHA-256; call it in the order of the
    ids."""
    total.update(f"{sample.id}\0".encode())
    for array in (sample.image, sample.masks, sample.weights):
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        total.update(f"{little.dtype.str}{little.shape}\0".encode())
        total.update(little.data)
