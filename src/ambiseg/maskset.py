"""`MaskSet`: a finite weighted set of label maps per image, the one value that all parts exchange.

Annotations and predictions are the same type: a model maps an image to a MaskSet, a metric compares two, a
picture draws one. For image b it is the discrete distribution

    p(y | x_b) = sum_k w_bk [y = m_bk],    w_bk >= 0,  sum_k w_bk = 1.

Sets of different size share a batch by padding: an entry with weight 0 is not there. Space may have any
number of axes. Shapes: B images, K masks, C channels of the label space, ``*S`` space. Two classes have one
channel, the foreground, also in the sets of a model that has two (`LabelSpace.one_channel`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike, NDArray
from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map

from ambiseg import notebook
from ambiseg.atomic_write import replacing_file
from ambiseg.defaults import DUPLICATE_IOU
from ambiseg.errors import AmbisegError
from ambiseg.escaping import visible
from ambiseg.labels import LabelSpace
from ambiseg.overlap import pairwise_overlap
from ambiseg.ranking import descending, exceeds, first_largest, stable_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNDECLARED_VOID = (
    "masks hold 255, which counts as void: pass (masks > 0).astype(np.uint8) if 255 is the foreground, or a label"
    " space with ignore_value=255 if it is void"
)
"""What is said of 255 in masks whose label space declares no value to ignore."""
NOTEBOOK_IMAGES, NOTEBOOK_MASKS = 2, 8
"""Images, and masks of each, of which a notebook shows pictures."""


@dataclass(frozen=True, eq=False)
class MaskSet:
    """A weighted set of label maps for each image of a batch.

    Attributes:
        masks: ``(B, K, *S)`` uint8 label maps.
        weights: ``(B, K)`` float, non-negative, sum 1 over K; 0 marks an entry that is not there.
        labels: what the integers of ``masks`` mean; given two channels for two classes, it keeps one.
        scores: ``(B, K)`` in [0, 1], how much a proposal is worth keeping, or None.
        probabilities: ``(B, K, C, *S)`` per-pixel probabilities before the decision, or None.
        annotators: ``(B, K)`` int64, who drew a mask (or whose style it has), a place in a list of names that is kept
            elsewhere; -1 where that is unknown. None where nobody asks.

    Raises:
        AmbisegError: shapes that do not belong together, or something else than tensors.

    Example:
        >>> pair = torch.tensor([[[[1, 0]], [[1, 0]], [[0, 0]]]], dtype=torch.uint8)
        >>> votes = MaskSet.uniform(pair, LabelSpace.binary()).merge_identical()
        >>> votes.weights
        tensor([[0.6667, 0.3333]])
        >>> votes.mean()
        tensor([[[[0.6667, 0.0000]]]])
        >>> votes
        <MaskSet: 1 image of 1x2, 2 masks, weights 0.333 to 0.667, classes background, foreground>
    """

    masks: Tensor
    weights: Tensor
    labels: LabelSpace
    scores: Tensor | None = None
    probabilities: Tensor | None = None
    annotators: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("masks", "weights", "scores", "probabilities", "annotators"):
            value = getattr(self, name)
            if value is not None or name in ("masks", "weights"):
                _need_tensor(name, value)
        if not isinstance(self.labels, LabelSpace):
            raise AmbisegError(
                f"labels of a MaskSet are a LabelSpace, received {type(self.labels).__name__}: pass"
                " LabelSpace.binary() or LabelSpace.of_classes(count)"
            )
        if self.masks.dtype == torch.bool:
            object.__setattr__(self, "masks", self.masks.to(torch.uint8))
        if self.labels.softmax:
            if self.probabilities is not None and self.probabilities.dim() > 2:
                object.__setattr__(self, "probabilities", self.probabilities[:, :, -1:])
            object.__setattr__(self, "labels", self.labels.one_channel)
        expected = tuple(self.masks.shape[:2])
        for name in ("weights", "scores", "annotators"):
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != expected:
                raise AmbisegError(
                    f"{name} of shape {tuple(value.shape)} do not fit masks (B, K) = {expected}"
                )
        if self.masks.is_floating_point():
            raise AmbisegError(
                f"masks are integer label maps, received {self.masks.dtype}: pass probabilities through"
                " MaskSet.from_probabilities"
            )
        if self.probabilities is not None:
            wanted = (*expected, self.labels.channels, *self.masks.shape[2:])
            if tuple(self.probabilities.shape) != wanted:
                raise AmbisegError(
                    f"probabilities of shape {tuple(self.probabilities.shape)}, expected {wanted}"
                )

    # -- making one ------------------------------------------------------------------------------------------

    @classmethod
    def uniform(cls, masks: Tensor, labels: LabelSpace) -> MaskSet:
        """Equal weights for label maps ``(B, K, *S)``."""
        return cls(masks, _uniform_weights(masks), labels)

    @classmethod
    def from_numpy(
        cls,
        masks: ArrayLike,
        weights: ArrayLike | None = None,
        labels: LabelSpace | None = None,
        scores: ArrayLike | None = None,
    ) -> MaskSet:
        """The set of one image, a batch of 1, from arrays; `stack` joins the sets of several images.

        Args:
            masks: label maps ``(K, H, W)``, or ``(K, *S)`` with more axes; whole numbers or bool.
            weights: probabilities ``(K,)`` of sum 1; equal if None.
            labels: what the integers mean; background 0 and foreground 1 if None.
            scores: ``(K,)`` in [0, 1], if the masks have any.

        Raises:
            AmbisegError: other shapes or types, values that are no classes, or weights that are no distribution.

        Example:
            >>> image = MaskSet.from_numpy(np.zeros((2, 4, 3), np.uint8), weights=[0.75, 0.25])
            >>> image.masks.shape, image.weights
            (torch.Size([1, 2, 4, 3]), tensor([[0.7500, 0.2500]]))
        """
        labels = LabelSpace.binary() if labels is None else labels
        array = np.asarray(masks)
        if array.ndim < 3 or array.size == 0:
            raise AmbisegError(
                f"masks of one image have shape (K, H, W), received {array.shape}: pass masks[None] for one mask"
            )
        if array.dtype.kind not in "biu":
            raise AmbisegError(
                f"masks hold whole numbers, received {array.dtype}: convert them, such as (masks > 0.5).astype(np.uint8)"
            )
        if labels.ignore_value is None and bool((array == labels.void).any()):
            raise AmbisegError(f"the arrays: {UNDECLARED_VOID}")
        if array.min() < 0 or array.max() > np.iinfo(np.uint8).max:
            labels.check(torch.from_numpy(array.astype(np.int64)), "the array of masks")
        numbers = {
            name: None if value is None else torch.from_numpy(np.asarray(value, np.float32))[None]
            for name, value in (("weights", weights), ("scores", scores))
        }
        tensor = torch.from_numpy(array.astype(np.uint8))[None]
        share = _uniform_weights(tensor) if numbers["weights"] is None else numbers["weights"]
        return cls(tensor, share, labels, numbers["scores"]).validate("the arrays")

    @classmethod
    def from_probabilities(
        cls,
        probabilities: Tensor,
        labels: LabelSpace,
        weights: Tensor | None = None,
        scores: Tensor | None = None,
    ) -> MaskSet:
        """Decide per-pixel probabilities ``(B, K, C, *S)`` into label maps and keep them beside; uniform by
        default."""
        masks = labels.decide(probabilities, dim=2)
        return cls(
            masks, _uniform_weights(masks) if weights is None else weights, labels, scores, probabilities
        )

    @classmethod
    def stack(cls, sets: Sequence[MaskSet]) -> MaskSet:
        """One batch from several, sets padded to the largest K and images to the largest size with void.

        Scores, annotators and probabilities are kept only where all have them (probabilities: and the same size).

        Raises:
            AmbisegError: no set, something else than a set, or label spaces that differ.
        """
        if not sets:
            raise AmbisegError("cannot stack an empty list of mask sets: pass at least one")
        for i, given in enumerate(sets):
            if not isinstance(given, MaskSet):
                raise AmbisegError(
                    f"stack joins MaskSets, received {type(given).__name__} at {i}: make it a MaskSet"
                )
            if given.labels != sets[0].labels:
                raise AmbisegError(
                    f"mask sets 0 and {i} differ in their label space ({sets[0].labels.names} and"
                    f" {given.labels.names}, or colours, or the value to ignore): give all the same"
                )
        labels = sets[0].labels
        count = max(s.masks.shape[1] for s in sets)
        space = [max(sizes) for sizes in zip(*(s.masks.shape[2:] for s in sets), strict=True)]
        masks = torch.cat([_pad(s.masks, [count, *space], labels.void) for s in sets])
        weights = torch.cat([_pad(s.weights, [count], 0) for s in sets])
        scores = probabilities = annotators = None
        if all(s.annotators is not None for s in sets):
            annotators = torch.cat(
                [_pad(s.annotators, [count], -1) for s in sets if s.annotators is not None]
            )
        if all(s.scores is not None for s in sets):
            scores = torch.cat([_pad(s.scores, [count], 0) for s in sets if s.scores is not None])
        if all(s.probabilities is not None and list(s.masks.shape[2:]) == space for s in sets):
            size = [count, labels.channels, *space]
            probabilities = torch.cat(
                [_pad(s.probabilities, size, 0) for s in sets if s.probabilities is not None]
            )
        return cls(masks, weights, labels, scores, probabilities, annotators)

    # -- looking at it ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of images B."""
        return self.masks.shape[0]

    def __iter__(self) -> Iterator[MaskSet]:
        """The set of each image, with the batch axis (B = 1)."""
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        """One line: images, size, masks of each, range of weights, classes, and which optional parts there are."""
        images, size = len(self), "x".join(map(str, self.masks.shape[2:]))
        there = self.weights[self.present]
        parts = [f"{images} image{'s' * (images != 1)}{f' of {size}' if size else ''}"]
        if there.numel():
            fewest, most = int(self.count.min()), int(self.count.max())
            least, greatest = (f"{float(w):.3g}" for w in there.aminmax())
            each = " each" * (images > 1)
            parts.append(f"{_range(str(fewest), str(most))} mask{'s' * (most != 1)}{each}")
            parts.append(f"weights {_range(least, greatest)}" if most > 1 else f"weight {greatest}")
        else:
            parts.append("no masks")
        names = self.labels.names
        parts.append(f"classes {visible(', '.join(names))}" if len(names) <= 4 else f"{len(names)} classes")
        parts += ["scores"] * (self.scores is not None)
        parts += ["pixel probabilities"] * (self.probabilities is not None)
        parts += [str(self.masks.device)] * (self.masks.device.type != "cpu")
        return f"<MaskSet: {', '.join(parts)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the line of `repr` and the most probable masks of the first images."""
        blocks = [notebook.paragraph(repr(self))]
        if self.masks.dim() == 4 and 0 not in self.masks.shape:
            blocks += [
                notebook.strip(row, self.labels) for row in self._rows(NOTEBOOK_IMAGES, NOTEBOOK_MASKS)
            ]
        return "".join(blocks)

    def plot(self, images: int = 4, masks: int = NOTEBOOK_MASKS) -> Figure:
        """Draw the most probable masks, the masks of each image in a line, with their weights and scores.

        `ambiseg.plot` draws the masks of one image on that image.

        Args:
            images: of the batch that are drawn, the first ones.
            masks: of each image that are drawn; how many more there are is said.

        Returns:
            A figure of pyplot: a notebook displays it, and ``plt.show()`` opens a window.

        Raises:
            AmbisegError: no mask, or masks that are not ``(H, W)``.

        Example:
            >>> MaskSet.from_numpy(np.eye(2, dtype=np.uint8)[None]).plot()  # doctest: +SKIP
        """
        if images < 1 or masks < 1:
            raise AmbisegError(f"plot draws at least one image and one mask, received {images} and {masks}")
        if self.masks.dim() != 4 or 0 in self.masks.shape:
            raise AmbisegError(
                f"plot draws masks (B, K, H, W) that are not empty, received {tuple(self.masks.shape)}"
            )
        return notebook.shown(notebook.draw_rows(self._rows(images, masks), self.labels))

    def _rows(self, images: int, masks: int) -> list[notebook.MaskRow]:
        """The most probable masks of the first images, with their weights and scores."""
        return [
            self._row(index, masks, f"image {index}" if len(self) > 1 else "")
            for index in range(min(len(self), images))
        ]

    def _row(self, index: int, masks: int, title: str) -> notebook.MaskRow:
        count = int(self.count[index])
        order = descending(self.weights[index : index + 1])[0, : min(count, masks)]
        shown = []
        for k in order.tolist():
            caption = f"{float(self.weights[index, k]):.3g}"
            if self.scores is not None:
                caption += f", score {float(self.scores[index, k]):.2f}"
            shown.append((self.masks[index, k].to(torch.uint8).cpu().numpy(), caption))
        return notebook.MaskRow(shown, count - len(shown), title)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[np.generic]:
        """`to_numpy`, for ``np.asarray(masks)``."""
        if copy is False and self.masks.device.type != "cpu":
            raise ValueError(
                f"masks on {self.masks.device} are an array only as a copy: leave copy=False out"
            )
        return np.array(self.to_numpy(), dtype=dtype, copy=copy)

    def to_numpy(self) -> NDArray[np.uint8]:
        """The label maps ``(B, K, *S)`` as an array, as ``np.asarray`` of the set gives them.

        It shares memory with ``masks`` on the CPU. Entries of weight 0 are in it (see `compact`). The other parts are
        arrays by ``weights.numpy()`` and so on.

        Example:
            >>> MaskSet.from_numpy(np.eye(2, dtype=np.uint8)[None]).to_numpy()
            array([[[[1, 0],
                     [0, 1]]]], dtype=uint8)
        """
        array: NDArray[np.uint8] = self.masks.cpu().numpy()
        return array

    def __getitem__(self, index: int | slice | Tensor) -> MaskSet:
        """The sets of some images of the batch; an integer keeps the batch axis (B = 1).

        Raises:
            IndexError: an integer outside the batch.
        """
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of a batch of {len(self)}")
        rows = slice(index, index + 1 if index != -1 else None) if isinstance(index, int) else index
        return MaskSet(
            self.masks[rows],
            self.weights[rows],
            self.labels,
            None if self.scores is None else self.scores[rows],
            None if self.probabilities is None else self.probabilities[rows],
            None if self.annotators is None else self.annotators[rows],
        )

    @property
    def present(self) -> Tensor:
        """Which entries are there: weight above 0, ``(B, K)`` bool."""
        return self.weights > 0

    @property
    def count(self) -> Tensor:
        """Number of masks of each image ``(B,)``."""
        return self.present.sum(1)

    def is_finite(self) -> bool:
        """Whether weights, and probabilities of pixels where there are any, are finite for the masks that are there."""
        if self.probabilities is None:
            return bool(self.weights.isfinite().all())
        pixels = self.probabilities.flatten(2).sum(2).isfinite() | ~self.present
        return bool(self.weights.isfinite().all()) and bool(pixels.all())

    def validate(self, what: str = "mask set") -> MaskSet:
        """Raise `AmbisegError` where weights, classes or probabilities are not those of a distribution;
        return self.

        Masks of 0 and 255 are refused as well unless the label space declares ``ignore_value=255``: 255 is void,
        so they would all be empty. Void that pads images of different size is no reason.
        """
        if bool((self.weights < 0).any()) or not bool(self.weights.isfinite().all()):
            raise AmbisegError(f"{what}: weights must be finite and not negative")
        off = (self.weights.sum(1) - 1).abs()
        if self.weights.numel() == 0 or float(off.max()) > 1e-3:
            row = int(off.argmax()) if off.numel() else 0
            total = float(self.weights[row].sum()) if off.numel() else 0.0
            raise AmbisegError(
                f"{what}: weights of image {row} sum to {total:.4g}, not 1: divide them by their sum"
            )
        if not self.is_finite():
            raise AmbisegError(
                f"{what}: per-pixel probabilities must be finite, found nan or infinity: look at the model that made them"
            )
        if int(self.masks.max()) >= self.labels.classes or int(self.masks.min()) < 0:
            self.labels.check(self.masks[self.present], what)
            self._check_undeclared_void(what)
        return self

    def _check_undeclared_void(self, what: str) -> None:
        """Raise `AmbisegError` where 255 seems to be foreground: the label space declares no value to ignore, no
        mask shows a class, and void is more than the padding of `stack`."""
        masks, present = self.masks, _over_space(self.present, self.masks)
        void = (masks == self.labels.void) & present
        background = 0 if self.labels.background is None else self.labels.background
        foreground = present & ~void & (masks != background)
        if self.labels.ignore_value is not None or bool(foreground.any()):
            return
        common = void.any(1)
        if not torch.equal(common[:, None] & present, void) or not _is_padding(common):
            raise AmbisegError(f"{what}: {UNDECLARED_VOID}")

    def mean(self) -> Tensor:
        """Expected per-pixel probabilities ``sum_k w_k p_k``, ``(B, C, *S)``; of the label maps where none
        are kept."""
        value = self.probabilities
        if value is None:
            value = self.labels.one_hot(self.masks, dim=2, dtype=self.weights.dtype)
        return _weighted_sum(self.weights, value)

    def entropy(self) -> Tensor:
        """Per-pixel entropy of the mean in nats, ``H = -sum_c p_c log p_c`` over all classes, ``(B, *S)``:
        disagreement."""
        entropy: Tensor = torch.special.entr(self.labels.all_classes(self.mean(), dim=1)).sum(1)
        return entropy

    @property
    def labelled(self) -> Tensor:
        """Where at least one mask of an image gives a class, ``(B, *S)`` bool; all are void elsewhere."""
        return (self.labels.valid(self.masks) & _over_space(self.present, self.masks)).any(1)

    def areas(self, within: Tensor | None = None) -> Tensor:
        """Share of pixels that are not background, ``(B, K)`` in [0, 1]; void pixels are left out.

        Args:
            within: pixels to look at, ``(B, *S)`` bool, such as `labelled` of the annotations; all if None.

        Example:
            >>> masks = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 255]]])
            >>> MaskSet.uniform(masks, LabelSpace.binary()).areas()
            tensor([[0.5000, 0.3333]])
        """
        flat = self.masks.flatten(2)
        valid = self.labels.valid(flat)
        if within is not None:
            valid &= within.flatten(1)[:, None]
        hit = valid & (flat != (0 if self.labels.background is None else self.labels.background))
        return hit.sum(-1) / valid.sum(-1).clamp(min=1)

    # -- operations, each a new set --------------------------------------------------------------------------

    def to(self, device: torch.device | str) -> MaskSet:
        """The same set on another device."""
        return MaskSet(
            self.masks.to(device),
            self.weights.to(device),
            self.labels,
            None if self.scores is None else self.scores.to(device),
            None if self.probabilities is None else self.probabilities.to(device),
            None if self.annotators is None else self.annotators.to(device),
        )

    def hard(self) -> MaskSet:
        """The same set without per-pixel probabilities."""
        return replace(self, probabilities=None)

    def rethreshold(self, threshold: float) -> MaskSet:
        """Label maps computed again from the pixel probabilities: foreground where they exceed the threshold
        (binary labels).

        Dice and IoU are greatest at a threshold below 1/2, namely half of the greatest Dice (Lipton, Elkan
        and Naryanaswamy 2014): a small object that is less probable than not may still be worth drawing.

        Raises:
            AmbisegError: several classes, or no per-pixel probabilities.

        Example:
            >>> one = MaskSet.from_probabilities(torch.tensor([[[[0.3, 0.6]]]]), LabelSpace.binary())
            >>> one.masks, one.rethreshold(0.25).masks
            (tensor([[[0, 1]]], dtype=torch.uint8), tensor([[[1, 1]]], dtype=torch.uint8))
        """
        if not self.labels.is_binary or self.probabilities is None:
            lacking = (
                "per-pixel probabilities" if self.labels.is_binary else "one class beside the background"
            )
            raise AmbisegError(f"a foreground threshold needs {lacking}: leave it out")
        return replace(self, masks=self.labels.decide(self.probabilities, dim=2, threshold=threshold))

    def gather(self, index: Tensor) -> MaskSet:
        """Entries ``index (B, L)`` of each image, weights as they are (see `normalised`)."""

        def entries(value: Tensor | None) -> Tensor | None:
            if value is None:
                return None
            shape = index.shape + (1,) * (value.dim() - 2)
            return value.gather(1, index.view(shape).expand(*index.shape, *value.shape[2:]))

        masks, weights = entries(self.masks), entries(self.weights)
        assert masks is not None and weights is not None
        others = (entries(value) for value in (self.scores, self.probabilities, self.annotators))
        return MaskSet(masks, weights, self.labels, *others)

    def normalised(self) -> MaskSet:
        """Weights divided by their sum; sets of total 0 become uniform."""
        total = self.weights.sum(1, keepdim=True)
        uniform = torch.full_like(self.weights, 1.0 / self.weights.shape[1])
        return replace(self, weights=torch.where(total > 0, self.weights / total.clamp(min=1e-30), uniform))

    def compact(self) -> MaskSet:
        """Entries that are there first, in their order, and K no larger than the fullest set needs.

        While a model is exported the set stays as it is: the shapes of its graph do not depend on values.
        """
        if torch.compiler.is_exporting():
            return self
        order = stable_order((~self.present).to(torch.uint8))
        return self.gather(order[:, : max(1, int(self.count.max()))])

    def padded(self, count: int) -> MaskSet:
        """At least ``count`` places: void masks of weight 0 are added at the end."""
        if self.masks.shape[1] >= count:
            return self
        return MaskSet(
            _pad(self.masks, [count, *self.masks.shape[2:]], self.labels.void),
            _pad(self.weights, [count], 0),
            self.labels,
            None if self.scores is None else _pad(self.scores, [count], 0),
            None
            if self.probabilities is None
            else _pad(self.probabilities, [count, *self.probabilities.shape[2:]], 0),
            None if self.annotators is None else _pad(self.annotators, [count], -1),
        )

    def sort(self) -> MaskSet:
        """Entries by descending weight, equal ones in their order, those that are not there last."""
        return self.gather(descending(self.weights.masked_fill(~self.present, -1)))

    def with_best_of(self, chosen: Tensor) -> Tensor:
        """The entries of ``chosen (B, K)`` that are there; where that is none, the best one, by score, else by
        weight."""
        value = self.weights if self.scores is None else self.scores
        best = first_largest(value.masked_fill(~self.present, -1), 1)[:, None]
        chosen = chosen & self.present
        none = ~chosen.any(1, keepdim=True)
        return chosen | (none & torch.zeros_like(chosen).scatter(1, best, True))

    def top(self, k: int) -> MaskSet:
        """The ``k`` entries of highest weight, renormalised."""
        if k < 1:
            raise AmbisegError(f"top needs k >= 1, received {k}")
        return (
            self.sort()
            .gather(torch.arange(min(k, self.masks.shape[1]), device=self.masks.device).repeat(len(self), 1))
            .normalised()
            .compact()
        )

    def merge_identical(self) -> MaskSet:
        """Identical masks become one, the first: weights add up, of scores the maximum, of probabilities the
        mean; whose they are is no longer known."""
        weights, scores = self.weights.clone(), None if self.scores is None else self.scores.clone()
        probabilities = None if self.probabilities is None else self.probabilities.clone()
        gone = ~self.present
        for k in range(self.masks.shape[1] - 1):
            same = (self.masks[:, k + 1 :] == self.masks[:, k : k + 1]).flatten(2).all(-1)
            same = same & ~gone[:, k : k + 1] & ~gone[:, k + 1 :]
            group = torch.cat([weights[:, k : k + 1], weights[:, k + 1 :] * same], 1)
            weights[:, k] = group.sum(1)
            if probabilities is not None:
                share = group / group.sum(1, keepdim=True).clamp(min=1e-30)
                probabilities[:, k] = _weighted_sum(share, probabilities[:, k:])
            if scores is not None:
                scores[:, k] = torch.maximum(scores[:, k], (scores[:, k + 1 :] * same).amax(1))
            gone[:, k + 1 :] |= same
        weights = weights.masked_fill(gone, 0)
        return MaskSet(self.masks, weights, self.labels, scores, probabilities).compact()

    def drop_near_duplicates(self, iou: float = DUPLICATE_IOU) -> MaskSet:
        """Drop every mask whose IoU with a better one exceeds ``iou``, or is 1; its weight goes to that one.

        Better means a higher score, or a higher weight where there are no scores (mode proposals, section
        4.5); of two equal ones the first is better.
        """
        return self._reassigned(self.duplicate_index(iou))

    def duplicate_index(self, iou: float = DUPLICATE_IOU) -> Tensor:
        """Index ``(B, K)`` int64 of the mask that `drop_near_duplicates` keeps for each one, itself if it
        stays.

        Example:
            >>> masks = torch.tensor([[[1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 1, 0]]])
            >>> MaskSet.uniform(masks, LabelSpace.binary()).duplicate_index(iou=0.7)
            tensor([[0, 1, 0]])
        """
        value = self.weights if self.scores is None else self.scores
        order = descending(value.masked_fill(~self.present, -1))
        ranked = self.gather(order)
        overlap = pairwise_overlap(ranked.masks, ranked.masks, self.labels)
        close = exceeds(overlap.iou(), iou) | (overlap.intersection == overlap.union).all(-1)
        close &= ranked.present[:, :, None] & ranked.present[:, None]
        kept = torch.arange(order.shape[1], device=order.device).expand_as(order).clone()
        for k in range(order.shape[1] - 1):
            free = kept[:, k + 1 :] == torch.arange(k + 1, order.shape[1], device=order.device)
            copies = close[:, k, k + 1 :] & free & (kept[:, k] == k)[:, None]
            kept[:, k + 1 :] = kept[:, k + 1 :].masked_fill(copies, k)
        return torch.empty_like(order).scatter(1, order, order.gather(1, kept))

    def _reassigned(self, target: Tensor) -> MaskSet:
        """The set after the weight of every entry is added to that of entry ``target (B, K)``."""
        weights = torch.zeros_like(self.weights).scatter_add(1, target, self.weights)
        return replace(self, weights=weights).compact()

    def sample_one(self, generator: torch.Generator | None = None) -> MaskSet:
        """One mask of each image, drawn at random by weight: a set with K = 1 and weight 1."""
        index = torch.multinomial(self.weights, 1, generator=generator)
        one = self.gather(index)
        return replace(one, weights=torch.ones_like(one.weights))

    # -- files -----------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write to ``.npz`` (compressed, no pickles), whole or not at all; `load` reads it back."""
        arrays = {"masks": self.masks.cpu().numpy(), "weights": self.weights.cpu().numpy()}
        if self.scores is not None:
            arrays["scores"] = self.scores.cpu().numpy()
        if self.probabilities is not None:
            arrays["probabilities"] = self.probabilities.cpu().numpy()
        if self.annotators is not None:
            arrays["annotators"] = self.annotators.cpu().numpy()
        arrays["labels"] = np.frombuffer(json.dumps(self.labels.to_dict()).encode(), dtype=np.uint8)
        with replacing_file(Path(path)) as partial, open(partial, "wb") as partial_file:
            np.savez_compressed(partial_file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> MaskSet:
        """Read what `save` wrote.

        Raises:
            AmbisegError: the file is not one, or is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            labels = LabelSpace.from_dict(json.loads(arrays.pop("labels").tobytes()))
            tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
            found = cls(labels=labels, **tensors)
            found._check_numbers()
            return found
        except Exception as error:  # numpy, zipfile, json and torch object to damage each in its own way
            line = " ".join(str(error).split())[:200] or type(error).__name__
            raise AmbisegError(
                f"{path} is not a mask set written by MaskSet.save ({line}): write it again"
            ) from error

    def _check_numbers(self) -> None:
        """Raise `AmbisegError` for weights of another sum than 1, NaN, and integers that are no classes."""
        if not bool((self.weights >= 0).all() & ((self.weights.sum(1) - 1).abs() < 1e-3).all()):
            raise AmbisegError("its weights are not numbers from 0 whose sum is 1")
        for name in ("scores", "probabilities"):
            value = getattr(self, name)
            if value is not None and not bool(value.isfinite().all()):
                raise AmbisegError(f"its {name} are NaN or infinite")
        self.labels.check(self.masks, "it")


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _need_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise AmbisegError(
            f"{name} of a MaskSet are a torch.Tensor, received {type(value).__name__}: make the set of one image from"
            " arrays with MaskSet.from_numpy"
        )


def _uniform_weights(masks: Tensor) -> Tensor:
    """Equal weights ``(B, K)`` for masks ``(B, K, *S)``."""
    _need_tensor("masks", masks)
    return torch.full(masks.shape[:2], 1.0 / masks.shape[1], device=masks.device)


def _over_space(value: Tensor, masks: Tensor) -> Tensor:
    """Values ``(B, K)`` with as many axes as ``masks``."""
    return value.view(*value.shape, *[1] * (masks.dim() - 2))


def _is_padding(void: Tensor) -> bool:
    """Whether void ``(B, *S)`` lies at the ends of the axes only, so that the rest is a box at the origin."""
    box = torch.ones_like(void)
    for axis in range(1, void.dim()):
        counts = (~void).movedim(axis, 1).reshape(len(void), void.shape[axis], -1).any(2)
        shape = [len(void), *(void.shape[axis] if a == axis else 1 for a in range(1, void.dim()))]
        box &= counts.cumprod(1).bool().view(shape)
    return torch.equal(box, ~void)


def _weighted_sum(weights: Tensor, value: Tensor) -> Tensor:
    """``sum_k w_bk v_bk``, ``(B, ...)``, in the precision of ``value`` also inside an autocast region."""
    with torch.autocast(value.device.type, enabled=False):
        total: Tensor = torch.einsum("bk,bk...->b...", weights.to(value.dtype), value)
    return total


def _pad(value: Tensor, sizes: list[int], fill: int) -> Tensor:
    """Extend axes 1.. of ``value`` at their end to ``sizes``."""
    if list(value.shape[1:]) == sizes:
        return value
    wide = value.new_full((value.shape[0], *sizes), fill)
    wide[tuple(slice(0, n) for n in value.shape)] = value
    return wide


def collate_sets(batch: Sequence[MaskSet], *, collate_fn_map: object = None) -> MaskSet:
    """The batch of mask sets of one image each, by which `torch.utils.data.default_collate` joins them."""
    for i, one in enumerate(batch):
        if isinstance(one, MaskSet) and len(one) != 1:
            raise AmbisegError(
                f"collate joins mask sets of one image each, received one of {len(one)} images in sample {i}:"
                " pass masks[i]"
            )
    return MaskSet.stack(batch)


default_collate_fn_map[MaskSet] = collate_sets
