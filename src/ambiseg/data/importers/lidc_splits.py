"""Splits of LIDC-IDRI: by patient, or by the rule that published numbers call LIDCv1.

*LIDCv1* is what the public code of MoSE does to the distributed crops: the sorted names of the series are
shuffled with NumPy's legacy generator at seed 0 and the first fifth, rounded up, tests; of the rest, shuffled
in the same way again, the first fifth validates. A list of names was never published; the rule gives the same
splits where the set of series is the same. It is by series: eight patients have two, which it may part.

Reference: Gao et al. (2023), Modeling multimodal aleatoric uncertainty in segmentation with mixture of
stochastic experts, 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from ambiseg.data.splits.assignment import split_groups

_ROOT = "1.3.6.1.4.1.14519.5.2.1.6279.6001."
_TWICE = {
    "254176853278710432756285662989": "151647338241909635299641922057",
    "768856069922657732839929586657": "453946099750629491201946672998",
    "322682676064999314374885526223": "406508755509460310384282367044",
    "159996104466052855396410079250": "316900421002460665752357657094",
    "147979688121667984912633630926": "170344311940983984999167745197",
    "802846969823720586279982179144": "207544473852086582434957174616",
    "335799017122466251265955525941": "226813447046845316215094488309",
    "145600217263993824806929968211": "132435134414676494105851714351",
}


def patient_of(series: str) -> str:
    """A name for the patient where only the series is known: the series itself, of the eight patients with
    two the first.

    Example:
        >>> patient_of("1.3.6.1.4.1.14519.5.2.1.6279.6001.254176853278710432756285662989")[-6:]
        '922057'
        >>> patient_of("1.2.3")
        '1.2.3'
    """
    first = _TWICE.get(series.removeprefix(_ROOT))
    return series if first is None else _ROOT + first


def split_series(patients: Mapping[str, str], rule: str, seed: int) -> tuple[dict[str, str], str]:
    """A split for every series, and the name of how it was made.

    Args:
        patients: patient of each series.
        rule: ``patient`` or ``lidcv1``.
        seed: of ``patient``.

    Example:
        >>> split_series({"s1": "p1", "s2": "p1", "s3": "p2"}, "lidcv1", 0)[0]
        {'s1': 'val', 's2': 'train', 's3': 'test'}
    """
    if rule == "lidcv1":
        return _lidcv1(patients), "LIDCv1 (by series, 64/16/20, the rule of MoSE)"
    splits = split_groups(patients.values(), seed=seed)
    return {
        series: splits[patient] for series, patient in patients.items()
    }, f"by patient, 60/20/20, seed {seed}"


def _lidcv1(series: Iterable[str]) -> dict[str, str]:
    rest, splits = sorted(series), dict.fromkeys(series, "train")
    for split in ("test", "val"):
        order = np.random.RandomState(0).permutation(len(rest))
        fifth = math.ceil(0.2 * len(rest))
        splits.update((rest[i], split) for i in order[:fifth])
        rest = [rest[i] for i in order[fifth:]]
    return splits
