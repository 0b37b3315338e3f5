"""`ItemForm`: where image, masks and weights are in an item of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ambiseg.data.files.validation import FileProblem
from ambiseg.data.memory.values import is_label_map, is_torchio, separate
from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError, listed

IMAGE_KEYS = ("image", "img")
MASK_KEYS = ("masks", "mask", "labels", "label", "annotations", "segmentation")
MASK_PREFIXES = ("mask_", "label_")
"""What the keys of an image, of its masks, or of one mask each are called, where nobody names them."""
WEIGHTS_KEY = "weights"
_NOT_MASKS = ("_meta_dict", "_transforms")
"""Ends of keys that MONAI adds."""


@dataclass(frozen=True)
class Parts:
    """What an item consists of.

    Attributes:
        image: the image, of any kind.
        masks: the masks with the names of their annotators, which are all empty where nothing names them.
        weights: one number for each mask, or a dictionary of numbers by names; None if all weigh alike.
    """

    image: Any
    masks: tuple[tuple[str, Any], ...]
    weights: Any = None


@dataclass(frozen=True)
class ItemForm:
    """Where image, masks and weights are in an item.

    Attributes:
        image, masks, weights: keys of a dictionary; ``masks`` may be several keys, of one annotator each. They are
            found where they are None.
        annotators: names of the masks, in their order; empty where a dictionary names them or nobody does.

    Raises:
        AmbisegError: two annotators, or two keys of masks, of one name.

    Example:
        >>> ItemForm().parts({"image": [[0.0]], "mask_anna": [[1]], "mask_ben": [[0]]}, "item 0").masks
        (('anna', [[1]]), ('ben', [[0]]))
    """

    image: Hashable = None
    masks: Hashable | Sequence[Hashable] = None
    weights: Hashable = None
    annotators: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keys = self.masks if isinstance(self.masks, (list, tuple)) else ()
        for what, names in (("annotators", self.annotators), ("masks", tuple(map(str, keys)))):
            twice = _twice(names)
            if twice:
                raise AmbisegError(
                    f"{what} names {twice!r} twice: give every mask of an image a name of its own"
                )

    def parts(self, item: Any, where: str) -> Parts:
        """The parts of an item.

        Args:
            item: a `Sample`, ``(image, masks)``, ``(image, masks, weights)`` or a dictionary.
            where: what to call it in messages.

        Raises:
            FileProblem: something else, keys that are missing or could be several, or masks without names that differ.
        """
        if isinstance(item, Sample):
            return Parts(item.image, tuple(zip(item.annotators, item.masks, strict=True)), item.weights)
        if isinstance(item, Mapping):
            image, masks, weights = self._of_mapping(item, where)
        elif isinstance(item, (tuple, list)) and len(item) in (2, 3):
            image, masks, weights = item[0], separate(item[1], where), item[2] if len(item) == 3 else None
        else:
            count = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
            raise FileProblem(
                where,
                f"it is a {type(item).__name__}{count}",
                "give (image, masks), (image, masks, weights) or a dictionary with image and masks",
            )
        return Parts(image, tuple(self._named(masks, where)), weights)

    def _named(self, masks: list[tuple[str, Any]], where: str) -> list[tuple[str, Any]]:
        if not masks:
            raise FileProblem(where, "it has no mask", "give at least one mask per image")
        if self.annotators:
            if len(self.annotators) != len(masks):
                raise FileProblem(
                    where,
                    f"it has {len(masks)} masks, but annotators names {len(self.annotators)}",
                    "name one annotator for each mask, or give masks as a dictionary {name: mask}",
                )
            masks = [(name, mask) for name, (_, mask) in zip(self.annotators, masks, strict=True)]
        names = [name for name, _ in masks]
        twice = _twice(names) if any(names) else None
        if twice is not None:
            raise FileProblem(
                where, f"two masks have the annotator {twice!r}", "give every mask a name of its own"
            )
        return masks

    def _of_mapping(self, item: Mapping[Any, Any], where: str) -> tuple[Any, list[tuple[str, Any]], Any]:
        for key in (self.image, self.weights, *self._mask_keys()):
            if key is not None and key not in item:
                raise FileProblem(
                    where, f"it has no key {key!r}", f"name one of its keys: {listed(map(repr, item))}"
                )
        image = self.image if self.image is not None else _image_key(item, where)
        keys = self._mask_keys() or _mask_keys(item, image, where)
        weights = item.get(WEIGHTS_KEY if self.weights is None else self.weights)
        several = separate(item[keys[0]], where)
        of_all = keys[0] == self.masks or (self.masks is None and keys[0] in MASK_KEYS)
        if len(keys) == 1 and (of_all or len(several) > 1 or any(name for name, _ in several)):
            return item[image], several, weights
        return item[image], [(_annotator(key), item[key]) for key in keys], weights

    def _mask_keys(self) -> list[Hashable]:
        """Those that were named."""
        if self.masks is None:
            return []
        return list(self.masks) if isinstance(self.masks, (list, tuple)) else [self.masks]


def _image_key(item: Mapping[Any, Any], where: str) -> Hashable:
    volumes = [key for key, value in item.items() if is_torchio(value) and not is_label_map(value)]
    keys = [key for key in IMAGE_KEYS if key in item] or volumes
    return _one(keys, item, where, "image")


def _mask_keys(item: Mapping[Any, Any], image: Hashable, where: str) -> list[Hashable]:
    """The key of all masks, or those of one mask each."""
    maps = [key for key, value in item.items() if is_label_map(value)]
    if maps:
        return maps
    each = [
        key
        for key in item
        if isinstance(key, str) and key.startswith(MASK_PREFIXES) and not key.endswith(_NOT_MASKS)
    ]
    keys = [key for key in MASK_KEYS if key in item and key != image]
    if each and not keys:
        return list(each)
    return [_one([*keys, *each], item, where, "masks")]


def _one(keys: Sequence[Hashable], item: Mapping[Any, Any], where: str, what: str) -> Hashable:
    if len(keys) == 1:
        return keys[0]
    said = (
        f"keys {listed(map(repr, keys))} could be the {what}" if keys else f"no key is known to be the {what}"
    )
    raise FileProblem(where, said, f"name the key: {what}='...'; it has {listed(map(repr, item))}")


def _annotator(key: Hashable) -> str:
    name = str(key)
    for prefix in MASK_PREFIXES:
        name = name.removeprefix(prefix) or name
    return name


def _twice(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
