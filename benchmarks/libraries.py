"""Our own code against libraries that do the same: results, speed, damaged input.

    python benchmarks/libraries.py                 all of it
    python benchmarks/libraries.py polygons kappa  some of it

Times are the median of alternating calls, as ours over theirs: above 1 the library is faster. It needs scikit-learn and
imagehash beside ``ambiseg[formats]``. What was decided: docs/research/libraries.md.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

REPEATS = 15


def ratio(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int = REPEATS) -> str:
    """Medians of alternating calls and their ratio."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(repeats):
        for which, call in enumerate((ours, theirs)):
            began = time.perf_counter()
            call()
            times[which].append(1e3 * (time.perf_counter() - began))
    one, other = (statistics.median(times[which]) for which in (0, 1))
    return f"ours {one:.3g} ms, theirs {other:.3g} ms, ratio {one / other:.2f}"


def blobs(seed: int, side: int) -> NDArray[np.bool_]:
    """A mask of smooth shapes."""
    random = np.random.default_rng(seed)
    return np.asarray(gaussian_filter(random.standard_normal((side, side)), side / 40) > 0)


def run_lengths() -> None:
    """Compressed run lengths of COCO."""
    from pycocotools import mask as coco

    from ambiseg.data.importers.coco_shapes import run_lengths as ours
    from ambiseg.exchange.coco import coco_rle

    shapes = [coco_rle(blobs(seed, 512)) for seed in range(20)]
    same = all((ours(one, (512, 512)) == (coco.decode(one) > 0)).all() for one in shapes)
    print("  20 masks of 512x512 equal:", same)
    print(
        " ",
        ratio(
            lambda: [ours(one, (512, 512)) for one in shapes], lambda: [coco.decode(one) for one in shapes]
        ),
    )
    for what, counts in {
        "truncated": shapes[0]["counts"][:-3],
        "too long": shapes[0]["counts"] + "04",
        "other characters": "~~~~",
        "a run of -1": "0O",
        "open end": "P",
        "of another size": coco_rle(blobs(0, 64))["counts"],
    }.items():
        code = f"from pycocotools import mask; print(mask.decode({{'size': [512, 512], 'counts': {counts!r}}}).sum())"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        said = found.stdout.strip() or (found.stderr.strip().splitlines() or ["crash"])[-1]
        try:
            own = str(ours({"size": [512, 512], "counts": counts}, (512, 512)).sum())
        except ValueError as error:
            own = f"ValueError: {error}"
        print(f"  {what}: theirs status {found.returncode}, {said[:80]}; ours {own}")


def polygons() -> None:
    """Filled polygons."""
    from pycocotools import mask as coco

    from ambiseg.data.importers.coco_shapes import fill_polygons, polygon_corners
    from ambiseg.exchange.coco import coco_polygons

    def theirs(shape: list[list[float]], side: int) -> NDArray[np.bool_]:
        return np.asarray(coco.decode(coco.merge(coco.frPyObjects(shape, side, side))) > 0)

    def mine(shape: list[list[float]], side: int) -> NDArray[np.bool_]:
        return fill_polygons(polygon_corners(shape), (side, side))

    random = np.random.default_rng(0)
    angles = np.sort(random.uniform(0, 2 * np.pi, (50, 30)), 1)
    stars = [
        [np.stack([128 + r * np.cos(a), 128 + r * np.sin(a)], 1).ravel().tolist()]
        for a, r in zip(angles, random.uniform(20, 120, (50, 30)), strict=True)
    ]
    differ = [float((mine(one, 256) != theirs(one, 256)).sum() / mine(one, 256).sum()) for one in stars]
    print(
        f"  50 stars of 30 corners: pixels that differ, as a share of the area: {statistics.mean(differ):.4f}"
    )
    side = 64
    masks = [blobs(seed, side) for seed in range(20)]
    outlines = [coco_polygons(mask) for mask in masks]
    simple = [(mask, one) for mask, one in zip(masks, outlines, strict=True) if one]
    for name, fill in (("ours", mine), ("theirs", theirs)):
        exact = sum(bool((fill(one, side) == mask).all()) for mask, one in simple)
        print(f"  outlines of pixels filled again, exact: {name} {exact} of {len(simple)}")
    print(" ", ratio(lambda: [mine(one, 256) for one in stars], lambda: [theirs(one, 256) for one in stars]))
    for what, corners in {
        "nan": "[float('nan')] * 6",
        "1e300": "[1e300, 0, 0, 1e300, 5, 5]",
        "1e7": "[0,0,1e7,0,1e7,1e7]",
    }.items():
        code = (
            "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30));"
            f"from pycocotools import mask as m; print(m.decode(m.frPyObjects([{corners}], 64, 64)).sum())"
        )
        try:
            found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
            print(
                f"  corners {what}: theirs status {found.returncode}, {(found.stdout or found.stderr).strip()[-60:]}"
            )
        except subprocess.TimeoutExpired:
            print(f"  corners {what}: theirs not done after 20 s")


def solvers() -> None:
    """Fixed steps of a flow."""
    from torchdiffeq import odeint

    from ambiseg.flows.solvers import integrate

    torch.manual_seed(0)
    z = torch.randn(8, 1, 32, 32)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(16, 1, 3, padding=1)
    )

    def velocity(state: Any, t: Any) -> Any:
        return network(state) * (1 + t.reshape(-1, 1, 1, 1))

    times = torch.linspace(0, 1, 11)
    for name, other in {"euler": "euler", "midpoint": "midpoint", "heun": "heun2", "rk4": "rk4"}.items():

        def ours(name: str = name) -> Any:
            return integrate(velocity, z, 10, name)

        def theirs(other: str = other) -> Any:
            return odeint(lambda t, state: velocity(state, t.expand(len(state))), z, times, method=other)[-1]

        with torch.no_grad():
            print(
                f"  {name}: largest difference {float((ours() - theirs()).abs().max()):.1e};",
                ratio(ours, theirs),
            )


def curves() -> None:
    """Precision and recall of selection scores."""
    from torchmetrics.functional.classification import binary_average_precision, binary_precision_recall_curve

    from ambiseg.metrics.selection import average_precision, precision_recall_curve

    torch.manual_seed(0)
    for what, scale in (("in [0, 1]", 1.0), ("logits", 40.0)):
        scores = torch.rand(20_000)
        matched = torch.rand(20_000) < scores
        scores = scale * (scores - (0.5 if scale > 1 else 0))
        own, other = average_precision(scores, matched), binary_average_precision(scores, matched.int())
        ours, theirs = (
            precision_recall_curve(scores, matched),
            binary_precision_recall_curve(scores, matched.int()),
        )
        print(
            f"  scores {what}: AP {float(own):.6f} and {float(other):.6f}; points {len(ours.precision)} and {len(theirs[0]) - 1}"
        )
    print(
        " ",
        ratio(
            lambda: precision_recall_curve(scores, matched),
            lambda: binary_precision_recall_curve(scores, matched.int()),
        ),
    )
    none = torch.zeros(3, dtype=torch.bool)
    print(
        "  nothing matched:",
        float(average_precision(scores[:3], none)),
        float(binary_average_precision(scores[:3], none.int())),
    )


def kappa() -> None:
    """Fleiss' kappa of annotators."""
    from torchmetrics.functional.nominal import fleiss_kappa

    from ambiseg.labels import LabelSpace
    from ambiseg.maskset import MaskSet
    from ambiseg.metrics.annotators import annotator_agreement

    for name, share in (("half foreground", 0.0), ("1 % foreground", 2.3), ("1 of 16,384 pixels", 9.0)):
        base = np.random.default_rng(0).standard_normal((128, 128))
        if share == 9.0:
            masks = torch.zeros(1, 4, 128, 128, dtype=torch.long)
            masks[0, :3, 5, 5] = 1
        else:
            noise = np.random.default_rng(1).standard_normal((4, 128, 128))
            masks = torch.as_tensor((base + 0.3 * noise > share).astype(np.int64))[None]
        own = annotator_agreement(MaskSet.uniform(masks, LabelSpace.binary())).fleiss_kappa
        votes = torch.stack([(masks[0] == c).sum(0).ravel() for c in (0, 1)], 1)
        print(f"  {name}: {float(own):.6f} and {float(fleiss_kappa(votes)):.6f}")


def folds() -> None:
    """Five folds of groups of unequal size, stratified by a rare word."""
    from sklearn.model_selection import StratifiedGroupKFold

    from ambiseg.data.splits.assignment import fold_images

    spread: dict[str, list[float]] = {
        "ours: images": [],
        "ours: rare": [],
        "theirs: images": [],
        "theirs: rare": [],
    }
    for seed in range(20):
        random = np.random.default_rng(seed)
        sizes = random.geometric(0.1, 60)
        rare = random.random(60) < 0.2
        groups = {f"{g}-{i}": str(g) for g, size in enumerate(sizes) for i in range(size)}
        values: dict[str, float | str] = {
            name: "rare" if rare[int(group)] else "common" for name, group in groups.items()
        }
        names = list(groups)
        y = np.array([values[name] == "rare" for name in names])
        split = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(
            names, y, [groups[n] for n in names]
        )
        theirs = {names[i]: fold for fold, (_, test) in enumerate(split) for i in test}
        for who, found in (("ours", fold_images(groups, 5, seed, values)), ("theirs", theirs)):
            images = Counter(found.values())
            own = Counter(fold for name, fold in found.items() if values[name] == "rare")
            spread[f"{who}: images"].append(max(abs(5 * images[f] / len(names) - 1) for f in range(5)))
            spread[f"{who}: rare"].append(max(abs(own[f] / max(images[f], 1) - y.mean()) for f in range(5)))
    for name, found_values in spread.items():
        what = (
            "largest deviation of a fold's size"
            if "images" in name
            else "largest deviation of the rare share"
        )
        print(f"  {name.split(':')[0]}: {what}, mean of 20 draws: {statistics.mean(found_values):.3f}")

    def theirs_again() -> list[Any]:
        return list(
            StratifiedGroupKFold(5, shuffle=True, random_state=0).split(names, y, [groups[n] for n in names])
        )

    print(" ", ratio(lambda: fold_images(groups, 5, 0, values), theirs_again, 5))


def hashes() -> None:
    """Candidates for near-identical images: bits that differ, of 256."""
    import imagehash

    from ambiseg.data.splits.leakage import MOST_BITS, mean_hash

    random = np.random.default_rng(0)
    scenes = [gaussian_filter(random.standard_normal((130, 130)), 4) for _ in range(100)]
    scenes = [(scene - scene.min()) / np.ptp(scene) * 200 + 20 for scene in scenes]

    def views(scene: NDArray[Any]) -> dict[str, NDArray[Any]]:
        inner = scene[:128, :128]
        return {
            "noise": inner + random.normal(0, 8, inner.shape),
            "brightness": 0.8 * inner + 20,
            "shift by a pixel": scene[1:129, 1:129],
        }

    def ours(image: NDArray[Any]) -> NDArray[Any]:
        return np.unpackbits(mean_hash(image[None].astype(np.uint8)))

    def mean_of(image: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(imagehash.average_hash(Image.fromarray(image.astype(np.uint8)), 16).hash).ravel()

    def cosine_of(image: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(imagehash.phash(Image.fromarray(image.astype(np.uint8)), 16).hash).ravel()

    for name, function in (("ours", ours), ("average_hash", mean_of), ("phash", cosine_of)):
        first = [function(scene[:128, :128]) for scene in scenes]
        told = []
        for kind in ("noise", "brightness", "shift by a pixel"):
            near = [
                (function(views(scene)[kind]) != one).sum() <= MOST_BITS
                for scene, one in zip(scenes, first, strict=True)
            ]
            told.append(f"{kind} {100 * statistics.mean(map(float, near)):.0f} %")
        pairs = [(first[i] != first[j]).sum() <= MOST_BITS for i in range(100) for j in range(i)]
        print(
            f"  {name}: found {', '.join(told)}; different images taken for near {100 * np.mean(pairs):.2f} %"
        )
    image = scenes[0][:128, :128]
    print("  average_hash:", ratio(lambda: ours(image), lambda: mean_of(image), 200))
    print("  phash:", ratio(lambda: ours(image), lambda: cosine_of(image), 200))
    deep = (scenes[0][:128, :128] * 250).astype(np.uint16)
    print(
        "  16 bits: bits set, of 256:",
        int(np.unpackbits(mean_hash(deep[None])).sum()),
        int(imagehash.average_hash(Image.fromarray(deep), 16).hash.sum()),
    )


PARTS: dict[str, Callable[[], None]] = {
    "run_lengths": run_lengths,
    "polygons": polygons,
    "solvers": solvers,
    "curves": curves,
    "kappa": kappa,
    "folds": folds,
    "hashes": hashes,
}


def main() -> None:
    """Compare the parts that are named, or all."""
    torch.set_num_threads(1)
    for part in sys.argv[1:] or PARTS:
        print(f"{part}: {' '.join((PARTS[part].__doc__ or '').split())}")
        PARTS[part]()


if __name__ == "__main__":
    main()
