#!/usr/bin/env bash
# Measure on a machine with a GPU and no network. That machine's python3 brings torch, lightning, torchmetrics, torchdiffeq,
# scipy, h5py, safetensors, tifffile, matplotlib, PyYAML, rich, Jinja2; what it lacks travels in build/gpu-packages.
#
#   benchmarks/gpu.sh --wheels      first, on a machine with a package registry: fill build/gpu-packages
#   benchmarks/gpu.sh [OPTION ...]  there: run benchmarks/gpu.py with these options
#
# PYTHON names the interpreter, python3 if unset.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
packages=$root/build/gpu-packages
# What ambiseg needs beyond the list above. Wheels of POT are built for one version of Python: 3.12.
names=(POT tyro docstring_parser typeguard nibabel importlib_resources)

if [[ ${1:-} == --wheels ]]; then
  wheels=$(mktemp -d)
  trap 'rm -rf "$wheels"' EXIT
  pinned=()
  for name in "${names[@]}"; do
    pinned+=("$(grep -i "^$name==" "$root/constraints.txt")")
  done
  platforms=()
  for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014; do
    platforms+=(--platform "${tag}_x86_64")
  done
  "$python" -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: \
    --implementation cp --python-version 3.12 "${platforms[@]}" --dest "$wheels" "${pinned[@]}"
  rm -rf "$packages"
  mkdir -p "$packages"
  for wheel in "$wheels"/*.whl; do
    "$python" -m zipfile -e "$wheel" "$packages"
    basename "$wheel" >> "$packages/wheels.txt"
  done
  # POT's libraries are 170 MiB of notes for debuggers, which nobody needs to carry.
  if command -v strip > /dev/null; then
    find "$packages" -name '*.so' -exec strip --strip-debug {} +
  fi
  cat "$packages/wheels.txt"
  size=$(du -sm "$packages" | cut -f1)
  echo "$size MiB in $packages"
  if ((size >= 64)); then
    echo "that is much to carry: install binutils, whose 'strip' makes the libraries small, and run this again" >&2
    exit 1
  fi
  exit
fi

# POT loads every tensor library that it finds, and needs numpy alone here.
export POT_BACKEND_DISABLE_JAX=1 POT_BACKEND_DISABLE_CUPY=1 POT_BACKEND_DISABLE_TENSORFLOW=1
path=$root/src
if ! "$python" -c "import ot, tyro" 2> /dev/null; then
  path=$path:$packages
  if ! why=$(PYTHONPATH=$path "$python" -c "import ot, tyro" 2>&1); then
    echo "${why##*$'\n'}: $python lacks ${names[*]}: run 'benchmarks/gpu.sh --wheels' where there is a package registry, and bring" \
      "build/gpu-packages (for Python 3.12) along" >&2
    exit 1
  fi
fi
export PYTHONPATH=$path${PYTHONPATH:+:$PYTHONPATH}
exec "$python" "$root/benchmarks/gpu.py" "$@"
