"""Scores of masks of any program: files, or arrays, against the annotations of a split.

The figures are those of `ambiseg.engine.evaluate`: both use a `Tally`. Several systems are measured on the same images,
and differ from the first one by an interval in which both are resampled together.
"""

from __future__ import annotations

from ambiseg.engine.score.arrays import score
from ambiseg.engine.score.files import score_files
from ambiseg.engine.score.results import Scores, System

__all__ = ["Scores", "System", "score", "score_files"]
