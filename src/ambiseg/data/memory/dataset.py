"""`dataset`: splits of objects in Python, for `ambiseg.fit`, `ambiseg.evaluate` and all that takes a data set."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeGuard, runtime_checkable

from ambiseg.data.files.validation import check_name
from ambiseg.data.info import DatasetInfo
from ambiseg.data.memory.items import ItemForm
from ambiseg.data.memory.split import MemorySplit
from ambiseg.data.sample import Sample
from ambiseg.data.split import Split
from ambiseg.data.splits.assignment import FRACTIONS, split_images
from ambiseg.errors import AmbisegError, counted, listed
from ambiseg.labels import LabelSpace

IN_MEMORY = "in memory"
"""What a run folder says of where such data are."""
_NAME = f"the data {IN_MEMORY}"
"""What messages call them."""
_OTHER_NAMES = {"validation": "val", "valid": "val"}
"""Names of splits in data sets of Hugging Face and others."""


@runtime_checkable
class Items(Protocol):
    """Anything with a length that gives items by their places: a list, a dataset of torch or of Hugging Face."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


DataLike = str | PathLike[str] | Mapping[str, Any] | Items
"""A path, a data set of `dataset`, a mapping of names of splits to datasets, or one dataset."""


class InMemory(Mapping[str, Split]):
    """A data set whose splits are objects in Python: what `dataset` returns.

    Attributes:
        info: classes and channels.
        drawn: whether its splits were drawn from one dataset.

    Example:
        >>> data = dataset([([[0.0, 1.0]], [[[0, 1]], [[0, 0]]])] * 5)
        >>> data
        <data in memory: 3 images in train, 1 image in val, 1 image in test; classes background, foreground>
        >>> data["val"][0].masks.shape
        (2, 1, 2)
    """

    def __init__(self, splits: Mapping[str, Split], info: DatasetInfo, drawn: bool = False) -> None:
        self._splits, self.info, self.drawn = dict(splits), info, drawn

    def __getitem__(self, name: str) -> Split:
        return self._splits[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._splits)

    def __len__(self) -> int:
        return len(self._splits)

    def open(self, name: str) -> Split:
        """A split; `AmbisegError` if there is none of this name."""
        if name not in self._splits:
            raise AmbisegError(
                f"the data in memory have no split {name!r}: they have {listed(self)}; pass"
                f" ambiseg.dataset({name}=...)"
            )
        return self._splits[name]

    def counts(self) -> str:
        """Its splits in words."""
        return ", ".join(f"{counted(len(split), 'image')} in {name}" for name, split in self.items())

    def __repr__(self) -> str:
        return f"<data in memory: {self.counts()}; classes {', '.join(self.info.labels.names)}>"


def dataset(
    data: Mapping[str, Any] | Items | None = None,
    *,
    train: Items | None = None,
    val: Items | None = None,
    test: Items | None = None,
    image: Hashable = None,
    masks: Hashable | Sequence[Hashable] = None,
    weights: Hashable = None,
    annotators: Sequence[str] = (),
    classes: Sequence[str] | int | LabelSpace | None = None,
    ignore_value: int | None = None,
    mask_threshold: float | None = None,
    channels: Sequence[str] = (),
    augment: Mapping[str, bool] | None = None,
    ids: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    groups: Sequence[Hashable] | None = None,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
) -> InMemory:
    """A data set of objects in Python, which stands wherever a path of a data set does.

    A dataset is a list, a ``torch.utils.data.Dataset`` with a length, one of MONAI, of TorchIO (`SubjectsDataset`) or
    of Hugging Face. An item is ``(image, masks)``, ``(image, masks, weights)``, a dictionary or a `Sample`. Images are
    ``(H, W)``, ``(C, H, W)`` or ``(H, W, C)``; masks are ``(H, W)``, ``(N, H, W)``, a list of masks, or a dictionary of
    masks by annotators. Arrays are of numpy or torch; pictures of Pillow and paths of files are read as files are.
    Items are asked for when they are needed, and checked every time.

    Args:
        data: a mapping of names of splits to datasets, or one dataset from which splits are drawn.
        train, val, test: datasets of these splits, in place of ``data``.
        image, masks, weights: keys of items that are dictionaries. ``masks`` may be several keys, of one annotator
            each. Where they are left out, ``image``, ``masks``, ``label``, ``mask_NAME`` and the like are found, and
            of a TorchIO subject its one image and its label maps.
        annotators: names of the masks of every image, in their order; numbers if empty.
        classes: names of the classes, their number, or a `LabelSpace`; background 0 and foreground 1 if None.
        ignore_value: number of pixels to leave out of training and metrics.
        mask_threshold: numbers of masks above it are foreground, for two classes with smoothed borders.
        channels: names of the image channels.
        augment: kinds of augmentation that the data allow (True) or forbid (False), as in ``dataset.yaml``.
        ids: names of the images, in their order; of several splits a mapping. Numbers if None.
        groups: group, such as the patient, of every image of one dataset: no group is in two splits.
        fractions, seed: shares of the splits that are drawn from one dataset, and the seed that draws them.

    Raises:
        AmbisegError: a dataset without length, an empty one, names that are doubled or do not fit, no splits.

    Example:
        >>> import numpy as np
        >>> pair = np.zeros((3, 8, 8)), {"anna": np.zeros((8, 8), int), "ben": np.ones((8, 8), int)}
        >>> dataset(train=[pair] * 4, val=[pair])["train"][0].annotators
        ('anna', 'ben')
    """
    given_splits = {
        name: given for name, given in (("train", train), ("val", val), ("test", test)) if given is not None
    }
    if (data is None) == (not given_splits):
        raise AmbisegError("pass data, or datasets as train, val and test, one of the two")
    if isinstance(data, Mapping):
        given_splits = {_OTHER_NAMES.get(name, name): given for name, given in data.items()}
        if len(given_splits) < len(data):
            raise AmbisegError(
                f"the data have two splits of one meaning ({listed(map(repr, data))}): leave one out"
            )
    for what, names in (("annotators", annotators), ("channels", channels), ("ids", ids)):
        if isinstance(names, str):
            raise AmbisegError(f"{what} are a list of names, received {names!r}: write [{names!r}]")
    if augment is not None and not isinstance(augment, Mapping):
        raise AmbisegError(f"augment is a mapping such as {{'flip': False}}, received {augment!r:.80}")
    if not isinstance(mask_threshold, (int, float, type(None))):
        raise AmbisegError(f"mask_threshold is a number such as 0.5, received {mask_threshold!r:.80}")
    form = ItemForm(image, masks, weights, tuple(map(str, annotators)))
    info = DatasetInfo(
        name=_NAME,
        labels=_labels(classes, ignore_value),
        augment=dict(augment or {}),
        channels=tuple(channels),
        mask_threshold=mask_threshold,
    )
    if given_splits or isinstance(data, Mapping):
        if groups is not None:
            raise AmbisegError("groups are for splits that are drawn from one dataset: leave them out")
        return _of_splits(given_splits, info, form, ids, None if classes is None else info.labels)
    if not isinstance(fractions, Mapping) or not all(isinstance(share, Real) for share in fractions.values()):
        raise AmbisegError(f"fractions are a mapping such as {dict(FRACTIONS)}, received {fractions!r:.80}")
    if not isinstance(seed, Integral) or seed < 0:
        raise AmbisegError(f"seed is a whole number from 0, received {seed!r:.80}")
    return _drawn(data, info, form, ids, groups, fractions, seed)


def as_data(data: DataLike, labels: LabelSpace | None = None) -> Path | InMemory:
    """A path as `pathlib.Path`, any other data as `dataset` makes them.

    Args:
        data: what a user gave.
        labels: classes of objects that do not say theirs.

    Raises:
        AmbisegError: neither a path nor data.
    """
    if isinstance(data, (str, PathLike)):
        return Path(data)
    return data if isinstance(data, InMemory) else dataset(data, classes=labels)


def title_of(data: Path | InMemory) -> str:
    """What messages call data."""
    return str(data) if isinstance(data, Path) else _NAME


def _of_splits(
    given: Mapping[str, Any],
    info: DatasetInfo,
    form: ItemForm,
    ids: Sequence[str] | Mapping[str, Sequence[str]] | None,
    asked: LabelSpace | None,
) -> InMemory:
    """Splits that were given; ``asked`` are the classes that a user named."""
    if not given:
        raise AmbisegError("the data have no split: pass a dataset as train and one as val")
    if ids is not None and not isinstance(ids, Mapping):
        ids = {name: ids for name in given} if len(given) == 1 else {}
        if not ids:
            raise AmbisegError("ids of several splits are a mapping, such as {'train': [...], 'val': [...]}")
    for name in ids or ():
        if name not in given:
            raise AmbisegError(
                f"ids name the split {name!r}, but the splits are {listed(given)}: correct the name"
            )
    splits: dict[str, Split] = {}
    for name, source in given.items():
        check_name(str(name), "split")
        if is_split(source):
            splits[name], info = source, source.info
            continue
        names = _ids(source, None if ids is None else ids.get(name), name)
        splits[name] = MemorySplit(source, info, form, names, title=name)
    names_of = {name: split.info.labels.names for name, split in splits.items()}
    if asked is not None:
        names_of["the argument classes"] = asked.names
    if len(set(names_of.values())) > 1:
        said = "; ".join(f"{name}: {', '.join(names)}" for name, names in names_of.items())
        raise AmbisegError(f"the splits have different classes ({said}): give data of the same classes")
    return InMemory(splits, info)


def _drawn(
    source: Any,
    info: DatasetInfo,
    form: ItemForm,
    ids: Any,
    groups: Sequence[Hashable] | None,
    fractions: Mapping[str, float],
    seed: int,
) -> InMemory:
    """Splits that are drawn from one dataset."""
    if is_split(source):
        raise AmbisegError("one split is no data set: name it, such as ambiseg.dataset(train=..., val=...)")
    if isinstance(source, (str, PathLike)):
        raise AmbisegError(f"{str(source)!r} is a path, which needs no ambiseg.dataset: pass it as it is")
    names = _ids(source, ids, "the data")
    if groups is not None and len(groups) != len(names):
        raise AmbisegError(
            f"there are {len(groups)} groups for {counted(len(names), 'image')}: give one for each"
        )
    group_of = {name: name if groups is None else str(groups[i]) for i, name in enumerate(names)}
    chosen = split_images(group_of, fractions, seed)
    splits = {}
    for split in fractions:
        places = [i for i, name in enumerate(names) if chosen[name] == split]
        if places:
            splits[split] = MemorySplit(source, info, form, names, places)
    return InMemory(splits, info, drawn=True)


def is_split(source: Any) -> TypeGuard[Split]:
    """Whether a value is an opened split."""
    return isinstance(getattr(source, "info", None), DatasetInfo) and hasattr(source, "stored_sample")


def _labels(classes: Sequence[str] | int | LabelSpace | None, ignore_value: int | None) -> LabelSpace:
    if ignore_value is not None and not isinstance(ignore_value, Integral):
        raise AmbisegError(f"ignore_value is a whole number such as 255, received {ignore_value!r:.80}")
    if isinstance(classes, LabelSpace):
        if ignore_value not in (None, classes.ignore_value):
            raise AmbisegError(
                f"classes have the ignore_value {classes.ignore_value}, the argument is {ignore_value}: give one of the two"
            )
        return classes
    if isinstance(classes, str):
        raise AmbisegError(
            f"classes are a list of names, received {classes!r}: write ['background', {classes!r}]"
        )
    if classes is None or isinstance(classes, int):
        return LabelSpace.of_classes(2 if classes is None else classes, ignore_value)
    if not isinstance(classes, Sequence) or any(isinstance(name, (Mapping, list, tuple)) for name in classes):
        raise AmbisegError(
            f"classes are names or their number, received {classes!r:.80}: colours are said by"
            " ambiseg.LabelSpace(names=(...), colors=((0, 0, 0), ...))"
        )
    return LabelSpace(tuple(map(str, classes)), ignore_value=ignore_value)


def _ids(source: Any, given: Sequence[str] | None, title: str) -> list[str]:
    """The name of every item; `AmbisegError` if there is no length or item, or names do not fit."""
    count = _length(source, title)
    if given is None and isinstance(source, (list, tuple)) and all(isinstance(s, Sample) for s in source):
        given = [sample.id for sample in source]
    if given is None:
        return [f"{i:0{len(str(count - 1))}d}" for i in range(count)]
    names = list(map(str, given))
    if len(names) != count:
        raise AmbisegError(f"there are {len(names)} ids for the {count} items of {title}: give one for each")
    known: set[str] = set()
    for name in names:
        check_name(name, "id")
        if name in known:
            raise AmbisegError(f"id {name!r} occurs twice in {title}: give every image its own id")
        known.add(name)
    return names


def _length(source: Any, title: str) -> int:
    kind = type(source).__name__
    if hasattr(source, "iloc"):
        raise AmbisegError(f"{title} is a {kind}, which gives columns: pass its rows, .to_dict('records')")
    if hasattr(source, "dataset") and not hasattr(source, "__getitem__"):
        raise AmbisegError(f"{title} is a {kind}, which makes batches: pass its dataset")
    if not hasattr(source, "__getitem__"):
        raise AmbisegError(
            f"{title} is a {kind}, which gives no item by its place: pass a list, such as list(...), or a Dataset with"
            " __len__ and __getitem__"
        )
    try:
        count = len(source)
    except (TypeError, NotImplementedError) as error:
        raise AmbisegError(
            f"{title} is a {kind} without a length, so no image can be drawn from it: pass a list, such as list(...), or"
            " a Dataset with __len__ and __getitem__"
        ) from error
    if isinstance(source, (str, bytes, Mapping)):
        raise AmbisegError(f"{title} is a {kind}, not a dataset: pass a list or a Dataset of items")
    if count == 0:
        raise AmbisegError(f"{title} holds no item: pass a dataset with images")
    return count
