"""`Dialect`: what a paper's code does where definitions leave it open, as one named value.

Metrics that papers compute differently have names of their own (`hm_iou`, `hm_iou_tiled`, ...). What is left
are conventions below the formulas: classes that both masks lack, modes without a mask, pixels that ECE counts.
A `Dialect` holds them. A `Comparison` carries it, so every metric of a comparison follows the same one:

    matching: HM IoU, HM IoU*, HM IoU (tiled), HM IoU (multi), M-IoU, MDM
    energy: GED², GED² (Dice), diversity
    consensus: Dice of mean, expected Dice
    pixels: ECE

All other metrics are the same in every dialect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.overlap import Absence


@dataclass(frozen=True)
class PixelRule:
    """Which pixels the bins of ECE hold.

    Attributes:
        evaluated: of several classes, a pixel falls into a bin only if its most probable class is evaluated.
        zero: a confidence of 0 falls into the first bin, and one at an edge into the upper bin. Else 0 falls
            into none, and one at an edge into the lower bin.

    Pixels in no bin count in the number of pixels by which the error is divided.
    """

    evaluated: bool = False
    zero: bool = True


@dataclass(frozen=True)
class Dialect:
    """Conventions of the code of a paper.

    Attributes:
        name: how it is asked for.
        source: whose conventions, and which; one sentence for tables.
        matching, energy, consensus: how classes count that both masks lack, see above.
        undefined_transport: HM IoU (tiled), and M-IoU of equal weights, of an image in which IoU of some pair
            is not defined.
        lone_modes: whether a mode without a mask counts 0 in HM IoU*; else it is left out (rectangular).
        pixels: of ECE.
        void_among: pixels that are void in every annotation are left out between predictions, too.
        flips: of several classes, only those that flip and their twins are evaluated, unless others are named.

    Example:
        >>> DIALECTS["ccdm"].matching
        Absence(one=1.0, every=1.0, single=1.0)
    """

    name: str
    source: str
    matching: Absence = Absence()
    energy: Absence = Absence()
    consensus: Absence = Absence()
    undefined_transport: float = math.nan
    lone_modes: bool = True
    pixels: PixelRule = PixelRule()
    void_among: bool = False
    flips: bool = False

    def space(self, labels: LabelSpace) -> LabelSpace:
        """The label space with the classes that this dialect evaluates.

        Raises:
            AmbisegError: it evaluates classes that flip, and there are none.

        Example:
            >>> DIALECTS["kohl"].space(LabelSpace(("sky", "car", "road", "car-twin"))).evaluated
            (1, 3)
        """
        if not self.flips or labels.only or labels.is_binary:
            return labels
        if not labels.switchable:
            raise AmbisegError(
                f"the dialect {self.name} evaluates classes that flip (such as car and car-twin), and none of the"
                f" {labels.classes} classes does: name classes (--classes, classes=...)"
            )
        return labels.restricted(labels.switchable)

    def tag(self, labels: LabelSpace) -> str:
        """What tables say beside figures of this dialect; nothing for the library's own over all classes.

        Example:
            >>> space = LabelSpace.of_classes(6)
            >>> DIALECTS["ccdm"].tag(space), AMBISEG.tag(space), AMBISEG.tag(space.restricted([1, 2, 3, 5]))
            ('ccdm', '', 'classes 1-3 5')
        """
        words = [] if self == AMBISEG else [self.name]
        return ", ".join(words + ([f"classes {_ranges(labels.only)}"] if labels.only else []))


_UNDEFINED, _ONE = Absence(every=math.nan), Absence(one=1.0)

AMBISEG = Dialect(
    "ambiseg",
    "This library: a class that both masks lack is left out, two empty masks have IoU 1, and a mode without a mask"
    " counts 0 in HM IoU*.",
)
"""The conventions of this library."""

DIALECTS: dict[str, Dialect] = {
    one.name: one
    for one in (
        AMBISEG,
        Dialect(
            "kohl",
            "Kohl et al. 2018, public code: only classes that flip are evaluated, and an image in which some pair of"
            " masks lacks them all has no value.",
            matching=Absence(every=math.nan, single=math.nan),
            energy=Absence(every=math.nan, single=math.nan),
            void_among=True,
            flips=True,
        ),
        Dialect(
            "flow-ssn",
            "Flow-SSN, public code: of several classes, an image in which some pair of masks lacks them all leaves the"
            " average; in Dice a class that both lack counts 1.",
            matching=_UNDEFINED,
            energy=_UNDEFINED,
            consensus=_ONE,
        ),
        Dialect(
            "mose",
            "MoSE, public code: only classes that flip are evaluated; an image in which some pair of masks lacks them all"
            " leaves the average of GED² and has an M-IoU of 0 for equal weights; pixels of confidence 0, or of another"
            " most probable class, fall into no bin of ECE.",
            matching=_UNDEFINED,
            energy=_UNDEFINED,
            undefined_transport=0.0,
            pixels=PixelRule(evaluated=True, zero=False),
            flips=True,
        ),
        Dialect(
            "ccdm",
            "CCDM and lightning-uq-box, public code: a class that both masks lack counts 1.",
            matching=_ONE,
            energy=_ONE,
            consensus=_ONE,
        ),
        Dialect(
            "wildfire",
            "Wildfire-spread scenarios, public code: two empty masks have a distance of 1 in GED² and an IoU of 1 in HM"
            " IoU, and HM IoU* leaves out modes without a mask.",
            energy=Absence(every=0.0, single=0.0),
            lone_modes=False,
        ),
    )
}
"""Dialects by name."""


def dialect_of(name: str | Dialect) -> Dialect:
    """The dialect of a name, or the one that was passed.

    Raises:
        UnknownNameError: there is none of that name.

    Example:
        >>> dialect_of("mose").undefined_transport
        0.0
    """
    if isinstance(name, Dialect):
        return name
    if name not in DIALECTS:
        raise UnknownNameError("dialect", name, DIALECTS)
    return DIALECTS[name]


def _ranges(ids: tuple[int, ...]) -> str:
    """Rising numbers with runs drawn together, ``1-3 5``."""
    ends = [i for i, (a, b) in enumerate(pairwise(ids), 1) if b != a + 1]
    runs = [ids[i:j] for i, j in pairwise([0, *ends, len(ids)])]
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
