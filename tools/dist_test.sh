#!/usr/bin/env bash
# dist_test.sh CONFIG CHECKPOINT GPUS [flags of test.py]: tests with a process for each of GPUS cards; without CUDA,
# with GPUS processes on the CPU. Environment: as for dist_train.sh.
exec python -P -m pvt_mm.commands.dist "$(dirname "$0")/test.py" "$@"
