"""Dialects against the numbers that the public code of papers gave for small stored masks.

``recorded/official.json`` names repository, file, commit and function of every number. The code itself is not here.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import DIALECTS, Comparison, evaluate_all, metric_collection

RECORDED = json.loads((Path(__file__).parent / "recorded" / "official.json").read_text(encoding="utf-8"))
RECORDS = RECORDED["records"]
CLOSE = 1e-6
"""The codes compute in 32 bits, and some add up to 1e-6 to numerator and denominator."""


def sets(record) -> tuple[MaskSet, MaskSet]:
    """Predictions and annotations of a record, with the classes that its dialect evaluates."""
    given, count = RECORDED["inputs"][record["input"]], record["samples"]
    labels = DIALECTS[record["dialect"]].space(LabelSpace(tuple(given["classes"])))

    def stack(images, weights):
        digits = [[[int(one) for one in mask] for mask in masks] for masks in images]
        masks = torch.tensor(digits, dtype=torch.uint8).unflatten(2, given["size"])
        found = MaskSet.uniform(masks, labels)
        return found if weights is None else replace(found, weights=torch.tensor(weights))

    ours = given["prediction_weights"] if record["weights"] == "both" else None
    theirs = given["annotation_weights"] if record["weights"] else None
    predictions = stack([masks[:count] for masks in given["predictions"]], ours)
    if record["metric"] == "ece":
        shares = torch.tensor(given["probabilities_in_32nds"]) / 32
        shares = shares.unflatten(-1, given["size"])
        predictions = MaskSet.from_probabilities(shares[:, :, None] if labels.is_binary else shares, labels)
    annotations = stack(given["annotations"], theirs)
    if "void" in record:
        void = torch.tensor([[one == "1" for one in mask] for mask in record["void"]]).unflatten(
            1, given["size"]
        )
        annotations = replace(annotations, masks=annotations.masks.masked_fill(void[:, None], labels.void))
    return predictions, annotations


@pytest.mark.parametrize(
    "record",
    RECORDS,
    ids=lambda r: (
        f"{r['code']}-{r['metric']}-{r['input']}-{r['samples']}-{r['weights'] or 'equal'}{'-void' * ('void' in r)}"
    ),
)
def test_a_dialect_gives_the_numbers_of_the_code(record):
    pair = sets(record)
    name, dialect = record["metric"], record["dialect"]
    if len(record["values"]) == 1:
        pooled = metric_collection(name, dialect=dialect)
        pooled.update(Comparison(*pair, DIALECTS[dialect]))
        found = pooled.compute()[name].reshape(1)
    else:
        found = evaluate_all(*pair, name, dialect)[name]
    expected = [math.nan if value is None else value for value in record["values"]]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=CLOSE)


def test_the_records_tell_dialects_apart():
    """Every dialect is recorded, and of the same masks they give different numbers."""
    assert {record["dialect"] for record in RECORDS} == set(DIALECTS)
    of_ged = {
        record["dialect"]: [-1.0 if value is None else value for value in record["values"]]
        for record in RECORDS
        if (record["metric"], record["input"], record["weights"]) == ("ged", "flips", "")
        and "void" not in record
    }
    assert (
        len({tuple(np.round(values, 3)) for values in of_ged.values()}) == len(of_ged) - 1
    )  # kohl equals mose
    assert all(record["repository"] and len(record["commit"]) == 40 for record in RECORDS)
