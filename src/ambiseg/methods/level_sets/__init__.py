"""Level sets of one probability map as samples: an example of a method in a package of its own."""

from dataclasses import dataclass

from ambiseg.methods.spec import MethodSpec, TestCase


@dataclass(frozen=True)
class LevelSetsSettings:
    """Level sets: masks from small to large, cut from one probability map."""

    samples: int = 16
    """Number of masks drawn for an image."""


SPEC = MethodSpec(
    name="level-sets",
    summary="nested masks, cut from the probabilities of one U-Net at random levels (example)",
    citation="@misc{level_sets, title = {An example of an ambiseg method}}",
    model="ambiseg.methods.level_sets.model:LevelSets",
    settings=LevelSetsSettings,
    # Pixels near a level fall on the other side of it in bfloat16; nested masks cannot show one patch without the other.
    test=TestCase({"samples": 24}, deterministic=False, gain=0.0, tolerance=0.2),
)
