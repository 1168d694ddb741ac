#!/usr/bin/env bash
# gpu.sh [MINUTES] [--out DIR] [--coco DIR] [--tiny]: measures on a GPU what only a GPU can show, the most valuable first,
# within the given time (default 9 minutes). Each result is kept as it comes (docs/performance.md, "On a GPU").
cd "$(dirname "$0")/.."
# torch asks the driver's library for cards, so that a process that has looked can still fork ones that compute on them
export PYTORCH_NVML_BASED_CUDA_CHECK=1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
python=python
command -v python > /dev/null || python=python3
exec "$python" -m benchmarks.gpu "$@"
