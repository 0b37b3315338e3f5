"""Time per slice of a volume on disk, in random order, for 512x512x200 voxels of int16.

    python benchmarks/volume_speed.py

Writes a NIfTI file with the noise and the smoothness of a CT, compressed and not, into a temporary folder. ``nibabel`` is
``nibabel.load(path).dataobj[..., k]`` for each slice anew, ``ambiseg`` is `Volume.plane` with an empty store.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from scipy.ndimage import zoom

from ambiseg.data.volumes.unpacked import UNPACKED
from ambiseg.data.volumes.volume import open_volume


def scan(shape: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """A smooth volume with noise, -1000 outside of a cylinder, as in a CT."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 200, [side // 32 + 1 for side in shape])
    smooth = zoom(coarse, [side / n for side, n in zip(shape, coarse.shape, strict=True)], order=1)
    values = smooth[: shape[0], : shape[1], : shape[2]] + rng.normal(0, 15, shape).astype(np.float32)
    x, y = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    values[x**2 + y**2 > 0.8] = -1000
    return np.asarray(values, np.int16)


def seconds(read: Callable[[int], Any], order: list[int]) -> float:
    """Per slice."""
    began = time.perf_counter()
    for index in order:
        read(index)
    return (time.perf_counter() - began) / len(order)


def main() -> None:
    """Measure and print one row for each file and axis."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 200))
    parser.add_argument("--naive", type=int, default=5, help="slices that nibabel reads")
    arguments = parser.parse_args()
    shape = tuple(arguments.shape)
    with tempfile.TemporaryDirectory() as folder:
        values = scan(shape)
        for suffix in (".nii.gz", ".nii"):
            path = Path(folder) / f"scan{suffix}"
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
            print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB")
            for axis in (2, 1, 0):
                order = np.random.default_rng(1).permutation(shape[axis]).tolist()

                def naive(index: int, path: Path = path, axis: int = axis) -> Any:
                    place: list[Any] = [slice(None)] * 3
                    place[axis] = index
                    return np.asarray(nibabel.load(path).dataobj[tuple(place)])

                UNPACKED.clear()
                volume = open_volume(path)
                before = seconds(naive, order[: arguments.naive])
                first = seconds(lambda index, a=axis, v=volume: v.plane(a, index), order[:1])  # type: ignore[misc]
                later = seconds(lambda index, a=axis, v=volume: v.plane(a, index), order[1:])  # type: ignore[misc]
                every = (first + later * (len(order) - 1)) / len(order)
                print(
                    f"  axis {axis}: nibabel {1e3 * before:.1f} ms, ambiseg {1e3 * every:.2f} ms per slice"
                    f" (first {1e3 * first:.0f} ms, later {1e3 * later:.2f} ms)"
                )


if __name__ == "__main__":
    main()
