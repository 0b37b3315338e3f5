"""Probabilities of the masks that were kept: the method's own, or those that a flow model gives them.

Gerard and Sullivan, "Deterministic Mode Proposals", section 3.2. Proposals are filtered first (table 5), then
the kept masks take the probabilities that explain what the flow model says about the image
(`FlowProbabilities`):

- ``velocity``: its velocity at t = 0, averaged over draws, as a weighted sum of masks (equation 22);
- ``mean``: the same from one evaluation; at t = 0 the velocity carries the mean mask and nothing else;
- ``posterior``: its posterior means at t > 0, whose weights depend on the noise (equation 19; not in the
  paper);
- ``samples``: samples drawn from it, each counted for its nearest mask.

Where masks are areas that go on and off independently (class flips, appendix B.2), these are a first estimate
p^ only: ``flips`` areas T_c are found in the masks, and ``p_j = prod_c q_c^b_jc (1 - q_c)^(1 - b_jc)`` with
``q_c = sum_j p^_j b_jc``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.maskset import MaskSet
from ambiseg.methods.flow_matching.model import FlowMatching
from ambiseg.mode_probabilities.class_flips import PATTERNS, structured_decomposition
from ambiseg.mode_probabilities.posterior_decomposition import posterior_decomposition
from ambiseg.mode_probabilities.velocity_decomposition import (
    assignment_counts,
    velocity_decomposition,
    with_probabilities,
)

if TYPE_CHECKING:
    from ambiseg.engine.predict import Run

KINDS = ("velocity", "mean", "posterior", "samples")
DRAWS = 64
"""Draws of noise, or samples, for each image (table 11)."""


class HeadProbabilities:
    """The probabilities that the method itself gives its masks, as they are or as the first estimate of class
    flips.

    Args:
        flips: areas that go on and off independently of each other; 0 for no such structure.

    Attributes:
        determined: of each image of the last call, whether what was asked (a flow model) left one choice of
            probabilities; where not, the most even ones are given. With flips this is said of the first
            estimate.

    Raises:
        AmbisegError: a number of flips that cannot be.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]]])
        >>> first = MaskSet(masks, torch.tensor([[0.5, 0.3, 0.1, 0.1]]), LabelSpace.binary())
        >>> HeadProbabilities(flips=2)([], first).weights  # flip probabilities 0.6 and 0.4
        tensor([[0.3600, 0.1600, 0.2400, 0.2400]])
    """

    kind = "head"

    def __init__(self, flips: int = 0) -> None:
        if not 0 <= flips <= PATTERNS:
            raise AmbisegError(
                f"flips is 0 to {PATTERNS}, received {flips}: count the areas of the masks that go on and off, 0 for none"
            )
        self.flips = flips
        self.determined: list[bool] = []

    def check(self, run: Run) -> None:
        """Raise `AmbisegError` where the masks of a run cannot have these probabilities."""
        if self.flips and not run.config.labels.is_binary:
            raise AmbisegError(
                f"flips switch areas of masks with two classes on and off, this run has {run.config.labels.classes}: leave"
                " flips at 0"
            )

    def remark(self, run: Run) -> str:
        """One sentence that a reader of these probabilities should know, or nothing."""
        return ""

    def record(self) -> dict[str, Any]:
        """How probabilities are made, as plain values."""
        return {"kind": self.kind, "flips": self.flips}

    def __call__(
        self,
        images: Sequence[NDArray[np.generic]],
        masks: MaskSet,
        generator: torch.Generator | None = None,
    ) -> MaskSet:
        """The same masks with these probabilities, on the CPU.

        Args:
            images: of one size, ``(C, H, W)`` each, not normalised.
            masks: the masks of these images that were kept.
            generator: source of noise.
        """
        first, self.determined = self._estimate(images, masks, generator)
        if not self.flips:
            return first
        return with_probabilities(masks, structured_decomposition(masks, first.weights, count=self.flips))

    def _estimate(
        self, images: Sequence[NDArray[np.generic]], masks: MaskSet, generator: torch.Generator | None
    ) -> tuple[MaskSet, list[bool]]:
        """The masks with the first estimate, and whether it was determined."""
        return masks, [True] * len(masks)


class FlowProbabilities(HeadProbabilities):
    """Estimates probabilities of masks with the flow model of a run.

    Args:
        flow: a loaded run of flow-matching, trained on data of the same classes and channels.
        kind: ``velocity``, ``mean``, ``posterior`` or ``samples``.
        draws: draws of noise, or samples; ``mean`` needs one.
        flips: as in `HeadProbabilities`.
        robust: let ``velocity``, ``mean`` and ``posterior`` explain medians over areas
            (`ambiseg.mode_probabilities.areas`).

    Raises:
        UnknownNameError: no such kind.
        AmbisegError: a run of another method, fewer than one draw, a number of flips that cannot be, or
            counted samples that should be robust.
    """

    def __init__(
        self, flow: Run, kind: str = "velocity", draws: int = DRAWS, flips: int = 0, robust: bool = False
    ) -> None:
        super().__init__(flips)
        if kind not in KINDS:
            raise UnknownNameError("kind of probabilities", kind, KINDS)
        if draws < 1:
            raise AmbisegError(f"probabilities need at least one draw, received {draws}")
        if robust and kind == "samples":
            raise AmbisegError("samples are counted, there is nothing to make robust: leave it out")
        if not isinstance(flow.model, FlowMatching):
            raise AmbisegError(
                f"a run of {flow.config.method} has no velocity: give a run of 'ambiseg train flow-matching'"
            )
        self.flow, self.model, self.kind, self.draws = flow, flow.model, kind, 1 if kind == "mean" else draws
        self.robust = robust

    def check(self, run: Run) -> None:
        """Raise `AmbisegError` where a run has other channels or classes than the flow model, or cannot have
        flips."""
        super().check(run)
        ours, theirs = run.config, self.flow.config
        named = bool(ours.channels and theirs.channels)
        for what, one, other in (
            ("channels", ours.in_channels, theirs.in_channels),
            ("channels", list(ours.channels) if named else [], list(theirs.channels) if named else []),
            ("classes", list(ours.labels.names), list(theirs.labels.names)),
        ):
            if one != other:
                raise AmbisegError(
                    f"the flow run was trained on data of other {what} ({other}) than this run ({one}): train one on the"
                    " same data"
                )

    def remark(self, run: Run) -> str:
        """That the two runs were trained on other images, where they were: no mistake, each normalises in its
        own way."""
        ours, theirs = run.config, self.flow.config
        if (ours.data_digest, ours.normalization) == (theirs.data_digest, theirs.normalization):
            return ""
        return (
            f"the flow run was trained on other images ({theirs.data or 'unknown data'}, digest {theirs.data_digest[:12]})"
            f" than this run ({ours.data or 'unknown data'}, digest {ours.data_digest[:12]}): its probabilities hold for"
            " images like its own"
        )

    def record(self) -> dict[str, Any]:
        """How probabilities are made, as plain values."""
        folder = None if self.flow.folder is None else str(self.flow.folder)
        return {**super().record(), "flow": folder, "draws": self.draws, "robust": self.robust}

    @torch.no_grad()
    def _estimate(
        self, images: Sequence[NDArray[np.generic]], masks: MaskSet, generator: torch.Generator | None
    ) -> tuple[MaskSet, list[bool]]:
        hardware = self.flow.hardware
        batch = hardware.images(torch.stack([self.flow.config.normalization(image) for image in images]))
        with hardware.autocast():
            if self.kind == "samples":
                samples = self.model.predict(batch, self.draws, generator).hard().to("cpu")
                return with_probabilities(masks, assignment_counts(samples, masks)), [True] * len(masks)
            estimate: Any = posterior_decomposition if self.kind == "posterior" else velocity_decomposition
            found = estimate(
                self.model, batch, masks, draws=self.draws, generator=generator, robust=self.robust
            )
        return with_probabilities(masks, found.probabilities), found.unique.tolist()
