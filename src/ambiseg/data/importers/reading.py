"""What importers of ordinary files share: reading that goes on after a bad file, masks of any distribution,
splits, scaling."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ambiseg.data.files.limits import MAX_HEADER, MAX_RATIO, check_size, npy_header
from ambiseg.data.files.reading import read_opaque
from ambiseg.data.files.validation import FileProblem, mask_problems, value_counts
from ambiseg.data.importers.base import Lazy
from ambiseg.data.importers.settings import SplitSettings
from ambiseg.data.listing import ordered_splits, read_columns, stays_inside
from ambiseg.data.sample import Sample
from ambiseg.data.splits.assignment import named, split_groups
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

_Key = TypeVar("_Key")


def collected(
    keys: Sequence[_Key], read: Callable[[_Key], Sample | None], problems: list[FileProblem]
) -> Lazy:
    """Samples read one at a time; a `FileProblem` is noted in ``problems`` and the rest goes on, None is left
    out.

    Example:
        >>> problems = []
        >>> def broken(key):
        ...     raise FileProblem(key, "the file is empty", "copy it again")
        >>> list(collected(["a.png"], broken, problems)), problems[0].file
        ([], 'a.png')
    """

    def samples() -> Iterator[Sample]:
        for key in keys:
            try:
                sample = read(key)
            except FileProblem as problem:
                problems.append(problem)
            else:
                if sample is not None:
                    yield sample

    return Lazy(len(keys), samples)


def found_files(root: Path, pattern: str) -> list[Path]:
    """Files in ``root`` that match a glob pattern, sorted; links that lead out of it and hidden files are not
    followed."""
    return sorted(
        path
        for path in root.glob(pattern)
        if path.is_file() and not path.name.startswith(".") and stays_inside(path, root)
    )


def own_file(root: Path, path: Path) -> Path:
    """``path``, unless a link leads out of ``root``: then `FileProblem`."""
    if not stays_inside(path, root):
        raise FileProblem(path, "the link or name leads out of the data set", "copy the file into it")
    return path


def nothing_found(source: Path, expected: str) -> AmbisegError:
    """The error that ``source`` is not the distribution that was expected."""
    return AmbisegError(
        f"{source}: found no {expected}: name the folder of the distribution as it was unpacked"
    )


def uniform_sample(name: str, image: NDArray[np.generic], masks: Mapping[str, NDArray[np.uint8]]) -> Sample:
    """A sample whose annotators weigh alike."""
    count = len(masks)
    return Sample(name, image, np.stack(list(masks.values())), np.full(count, 1 / count), tuple(masks))


def require_size(mask: NDArray[np.uint8], image: NDArray[np.generic], file: Path) -> None:
    """Raise `FileProblem` unless mask ``(H, W)`` and image ``(C, H, W)`` have the same size."""
    problems = mask_problems(mask, image.shape[1:], None, file)
    if problems:
        raise problems[0]


def require_classes(label_map: NDArray[np.uint8], labels: LabelSpace, file: str | Path) -> None:
    """Raise `AmbisegError` for an integer that is no class: going on would give data that mean something
    else."""
    present = np.flatnonzero(value_counts(label_map)).tolist()
    wrong = [v for v in present if v >= labels.classes and v != labels.ignore_value]
    if wrong:
        raise AmbisegError(
            f"{file}: the label(s) {wrong[:5]} are not in the class list 0..{labels.classes - 1}: this may be another"
            " kind of label file; name the right folder or the classes"
        )


def read_binary(path: Path) -> NDArray[np.uint8]:
    """A mask ``(H, W)`` of 0 and 1 from a picture of 0 and 1, or of black and white in any depth, JPEG
    included.

    Raises:
        FileProblem: unreadable, transparent, or grey levels that are neither.
    """
    values = read_opaque(path).max(0)
    if values.max() <= 1:
        return np.asarray(values > 0, np.uint8)
    half = np.iinfo(values.dtype).max // 2 if values.dtype.kind in "iu" else 0.5
    if values.max() <= half:
        raise FileProblem(
            path,
            f"the mask holds values up to {values.max()}, neither 0 and 1 nor black and white",
            "threshold it",
        )
    return np.asarray(values > half, np.uint8)


def nearest(values: NDArray[Any], size: tuple[int, int] | None) -> NDArray[Any]:
    """``(..., H, W)`` at another size, each pixel that of the nearest centre; unchanged if None.

    Example:
        >>> nearest(np.arange(8).reshape(2, 4), (1, 2)).tolist()
        [[5, 7]]
    """
    if size is None:
        return values
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, values.shape[-2:], strict=True)
    )
    return np.ascontiguousarray(values[..., rows[:, None], columns])


def smooth(image: NDArray[np.generic], size: tuple[int, int] | None) -> NDArray[np.generic]:
    """An image ``(C, H, W)`` at another size, bilinear, averaged where it shrinks; uint8 stays uint8."""
    if size is None or image.shape[1:] == size:
        return image
    planes = image if image.dtype == np.uint8 else image.astype(np.float32)
    height, width = size
    return np.stack(
        [np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BILINEAR)) for p in planes]
    )


def target_size(size: tuple[int, int]) -> tuple[int, int] | None:
    """The size to scale to, None for that of the files.

    Raises:
        AmbisegError: neither (0, 0) nor a height and a width.
    """
    if size == (0, 0):
        return None
    if not all(1 <= side <= 8192 for side in size):
        raise AmbisegError(f"--size is a height and a width of 1 to 8192 pixels, or 0 0, received {size}")
    return size


def splits_of(
    groups: Mapping[str, str], settings: SplitSettings, what: str
) -> tuple[dict[str, list[str]], str]:
    """Names of each split, and how they were split: by the split file, else by group with the seed.

    Args:
        groups: group (patient, volume, or itself) of each name.
        settings: seed or split file, which lists groups.
        what: the kind of group, such as ``case``.

    Raises:
        AmbisegError: a split file that is wrong or names an unknown group.
    """
    if settings.split_file is None:
        split_of, how = (
            split_groups(groups.values(), seed=settings.seed),
            f"by {what}, 60/20/20, seed {settings.seed}",
        )
    else:
        split_of = read_split_file(settings.split_file, set(groups.values()), what)
        how = f"by {what}, file {settings.split_file.name}"
    splits: dict[str, list[str]] = {}
    for name, group in sorted(groups.items()):
        if group in split_of:
            splits.setdefault(split_of[group], []).append(name)
    return {split: splits[split] for split in ordered_splits(splits)}, how


def read_split_file(path: Path, known: set[str], what: str) -> dict[str, str]:
    """Split of each name in a CSV with the columns id and split.

    Raises:
        AmbisegError: unreadable, without these columns, or with a name that is twice or not ``known``.
    """
    split_of = {name: row["split"] for name, row in read_columns(path, "split").items()}
    unknown = split_of.keys() - known
    if unknown:
        raise AmbisegError(
            f"{path} names {named(unknown)}, of which the data have no {what}: correct or remove them"
        )
    return split_of


def npz_array(path: Path, name: str) -> NDArray[Any]:
    """One array of an ``.npz`` file, its size checked before it is decoded; no pickles.

    Raises:
        FileProblem: unreadable, without that array, or with values that are no numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
            shape, dtype = npy_header(stream, path)
            entry = archive.getinfo(f"{name}.npy")
        if len(shape) < 3:
            raise FileProblem(
                path, f"{name} has shape {shape}", "store images and masks as (n, H, W) or more"
            )
        check_size(path, shape[-2:])
        size = math.prod(shape) * dtype.itemsize
        if (
            not size <= entry.file_size <= size + 2 * MAX_HEADER
            or entry.file_size > MAX_RATIO * path.stat().st_size
        ):
            raise FileProblem(
                path, f"{name} of shape {shape} is stored as {entry.file_size} bytes", "store it again"
            )
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])
    except AmbisegError:
        raise
    except MemoryError as error:
        raise FileProblem(path, f"{name} does not fit into memory", "store it in parts") from error
    except Exception as error:
        line = " ".join(str(error).split())
        raise FileProblem(path, f"cannot be read as npz with {name!r} ({line})", "copy it again") from error
