"""`MemorySplit`: images and masks of any object that has a length and gives items by their places."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ambiseg.data.causes import Problem, by_cause
from ambiseg.data.files.palette import COLORS_IN_YAML
from ambiseg.data.files.validation import (
    FileProblem,
    add_to_digest,
    canonical_sample,
    mask_problems,
    weight_problems,
)
from ambiseg.data.info import DatasetInfo
from ambiseg.data.memory.items import ItemForm, Parts
from ambiseg.data.memory.values import image_of, mask_of
from ambiseg.data.sample import Sample
from ambiseg.data.split import Split
from ambiseg.errors import AmbisegError, counted

_SHOWN = 3  # items in a message
_TWICE = 16  # items that are read again, to see whether they differ
_COLORS = "classes=ambiseg.LabelSpace(names=(...), colors=((0, 0, 0), ...))"
_SETTING = re.compile(r"(?:add|write) '(\w+): (.+?)' (?:to|in) dataset\.yaml")


class MemorySplit(Split):
    """Images of a dataset that is an object in Python, read and checked item by item.

    Nothing is copied or kept: an item is asked for whenever it is read. Its rules are those of files.

    Args:
        source: has a length and gives items by their places.
        info: classes and channels.
        form: where image, masks and weights are in an item.
        names: id of every item.
        places: items that belong to the split; all if None.
        title: what messages call it.
    """

    def __init__(
        self,
        source: Any,
        info: DatasetInfo,
        form: ItemForm,
        names: Sequence[str],
        places: Iterable[int] | None = None,
        title: str = "the data",
    ) -> None:
        self.source, self.info, self.form, self.title = source, info, form, title
        chosen = range(len(names)) if places is None else places
        self.places = sorted(chosen, key=lambda place: names[place])
        self.ids = tuple(names[place] for place in self.places)

    def __getitem__(self, index: int) -> Sample:
        """Read one item; `FileProblem` if it is wrong or cannot be read."""
        try:
            return self._read(index)
        except FileProblem as problem:
            raise FileProblem(
                problem.file, in_python(problem.problem), in_python(problem.remedy), problem.values
            ) from problem

    def digest(self, on_read: Callable[[Sample], object] | None = None) -> str:
        """SHA-256 over all samples, the same as of the same data on disk.

        Raises:
            AmbisegError: items are wrong, one message for the first cause with its items; or an item differs when it
                is read again.
        """
        total, read, problems = hashlib.sha256(), {}, []
        twice = set(np.linspace(0, len(self) - 1, _TWICE).round().astype(int).tolist())
        for index in range(len(self)):
            try:
                sample = self._read(index)
            except FileProblem as problem:
                problems.append(Problem(problem.file, problem.problem, problem.remedy, values=problem.values))
                continue
            if problems:
                continue
            add_to_digest(total, sample)
            if index in twice:
                read[index] = _digest_of(sample)
            if on_read is not None:
                on_read(sample)
        if problems:
            raise self._several(problems)
        for index, before in read.items():
            if _digest_of(self._read(index)) != before:
                raise AmbisegError(
                    f"{self._where(index)} differs when it is read again: take random transforms out of the dataset,"
                    " and let train.augment make them"
                )
        return total.hexdigest()

    def _where(self, index: int) -> str:
        return f"item {self.places[index]} of {self.title}"

    def _several(self, problems: list[Problem]) -> AmbisegError:
        """One sentence for the first cause."""
        labels = self.info.labels
        causes = by_cause(problems, labels.names, labels.ignore_value)
        first = causes[0]
        more = len(first.files) - _SHOWN
        files = ", ".join(first.files[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        others = f" (and {len(causes) - 1} other problems)" if len(causes) > 1 else ""
        return AmbisegError(f"{files}: {in_python(first.problem)}: {in_python(first.remedy)}{others}")

    def _read(self, index: int) -> Sample:
        where = self._where(index)
        try:
            item = self.source[self.places[index]]
        except Exception as error:
            raise FileProblem(
                where,
                f"the dataset does not give it ({_one_line(error)})",
                "correct the dataset",
            ) from error
        parts = self.form.parts(item, where)
        rules, places = self.info.mask_rules, _places(parts, where)
        masks = [mask_of(mask, rules, place) for (_, mask), place in zip(parts.masks, places, strict=True)]
        image = image_of(parts.image, masks[0].shape, where)
        problems = [
            problem
            for mask, place in zip(masks, places, strict=True)
            for problem in mask_problems(mask, image.shape[1:], self.info.labels, place)
        ]
        if problems:
            raise problems[0]
        names, id_ = tuple(name for name, _ in parts.masks), self.ids[index]
        sample = Sample(id_, image, np.stack(masks), _weights(parts, where, id_), names)
        try:
            return canonical_sample(sample, self.info, where)
        except FileProblem:
            raise
        except AmbisegError as error:
            problem, _, remedy = str(error).removeprefix(f"{where}: ").partition(": ")
            raise FileProblem(where, problem, remedy) from error


def _places(parts: Parts, where: str) -> list[str]:
    """What messages call each mask."""
    if len(parts.masks) == 1:
        return [where]
    return [f"{where}, mask {name or i!r}" for i, (name, _) in enumerate(parts.masks)]


def _weights(parts: Parts, where: str, sample_id: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    names, given = [name for name, _ in parts.masks], parts.weights
    if given is None or (isinstance(given, Mapping) and not given):
        return np.full(len(names), 1 / len(names))
    try:
        if not isinstance(given, Mapping):
            plain = given.detach().cpu() if isinstance(given, torch.Tensor) else given
            weights = np.asarray(plain, np.float64)
        else:
            stated = {str(name): float(weight) for name, weight in given.items()}
    except (TypeError, ValueError) as error:
        raise FileProblem(
            where, f"its weights are no numbers ({given!r:.60})", "give one for each mask"
        ) from error
    if not isinstance(given, Mapping):
        if weights.shape != (len(names),):
            raise FileProblem(
                where,
                f"it has {counted(len(names), 'mask')} but weights of shape {weights.shape}",
                "give one number for each mask; several masks are a list, (image, [mask, mask])",
            )
        return weights
    problems = weight_problems(stated, names, where, sample_id)
    if problems:
        raise problems[0]
    return np.array([stated[name] for name in names])


def _one_line(error: BaseException) -> str:
    """An error, or what caused it, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split()):.200}"


def _digest_of(sample: Sample) -> bytes:
    total = hashlib.sha256()
    add_to_digest(total, sample)
    return total.digest()


def in_python(sentence: str) -> str:
    """A sentence about ``dataset.yaml`` in words of `ambiseg.dataset`.

    Example:
        >>> in_python("write 'classes: [rest, cup]' in dataset.yaml if these are classes")
        "pass classes=['rest', 'cup'] to ambiseg.dataset if these are classes"
    """

    def argument(found: re.Match[str]) -> str:
        key, value = found.groups()
        if value.startswith("["):
            value = repr(value.strip("[]").split(", "))
        return f"pass {key}={value} to ambiseg.dataset"

    sentence = sentence.replace(f"in dataset.yaml {COLORS_IN_YAML}", f"by {_COLORS}")
    return _SETTING.sub(argument, sentence).replace("dataset.yaml", "ambiseg.dataset")


class _Counted:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


def check_sendable(split: Split) -> None:
    """Raise `AmbisegError` where a split cannot be sent to another process."""
    try:
        pickle.Pickler(_Counted()).dump(split)
    except Exception as error:
        raise AmbisegError(
            f"the data cannot be sent to other processes ({_one_line(error)}): take functions without a"
            " name (lambda) and open files out of the dataset, or set train.devices=1 and train.workers=0, or write"
            " the data with ambiseg.write_dataset and train on the path"
        ) from error
