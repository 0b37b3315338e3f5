"""Published methods of ambiguous segmentation, one file each, behind one interface (`Segmenter`).

`METHODS` lists them with their papers; nothing here imports torch before a method is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ambiseg.errors import UnknownNameError
from ambiseg.methods import settings
from ambiseg.networks.settings import UNetSettings

if TYPE_CHECKING:
    from ambiseg.labels import LabelSpace
    from ambiseg.methods.base import Segmenter


@dataclass(frozen=True)
class Method:
    """Entry of the list of methods.

    Attributes:
        name: what the command line calls it.
        summary: one line.
        settings: its settings dataclass.
        location: ``module:class``.
        citation: the paper as BibTeX.
        validation: what chooses the best weights, a key of `ambiseg.metrics.METRICS` or "loss" where sampling is dear.
        starts_from: other methods whose weights it can start from (``--init``), and how its settings and theirs give those
            that this asks for.
    """

    name: str
    summary: str
    settings: type[Any]
    location: str
    citation: str
    validation: str = "hm_iou_unique"
    starts_from: dict[str, Callable[[Any, Any], Any]] = field(default_factory=dict)


METHODS: dict[str, Method] = {
    method.name: method
    for method in [
        Method(
            name="mode-proposals",
            summary="all modes with scores and probabilities from one deterministic pass (Gerard and Sullivan)",
            settings=settings.ModeProposalsSettings,
            location="ambiseg.methods.mode_proposals:ModeProposals",
            citation="""@article{gerard_mode_proposals,
  title  = {Deterministic Mode Proposals: An Efficient Alternative to Generative Sampling
            for Ambiguous Segmentation},
  author = {Gerard, Sebastian and Sullivan, Josephine}
}""",
            starts_from={"flow-matching": settings.proposals_from_flow},
        ),
        Method(
            name="flow-matching",
            summary="samples of the distribution of masks by integrating a learnt velocity field (Lipman et al.)",
            settings=settings.FlowMatchingSettings,
            location="ambiseg.methods.flow_matching:FlowMatching",
            citation="""@inproceedings{lipman_flow_matching_2023,
  title     = {Flow Matching for Generative Modeling},
  author    = {Lipman, Yaron and Chen, Ricky T. Q. and Ben-Hamu, Heli and Nickel, Maximilian and Le, Matt},
  booktitle = {International Conference on Learning Representations},
  year      = {2023}
}""",
            validation="loss",
        ),
    ]
}


def method_info(name: str) -> Method:
    """The entry of a method.

    Raises:
        UnknownNameError: no such method; the message suggests the nearest name.

    Example:
        >>> method_info("mode-proposals").settings().proposals
        16
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return METHODS[name]


def build(
    name: str,
    in_channels: int,
    labels: LabelSpace,
    backbone: UNetSettings | None = None,
    settings: Any = None,
) -> Segmenter:
    """Build a method by name; settings default to the paper's.

    Raises:
        UnknownNameError: no such method.
    """
    entry = method_info(name)
    module, cls = entry.location.split(":")
    segmenter: Segmenter = getattr(importlib.import_module(module), cls)(
        in_channels, labels, backbone or UNetSettings(), settings or entry.settings()
    )
    return segmenter
