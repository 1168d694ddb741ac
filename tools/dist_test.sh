#!/usr/bin/env bash
# dist_test.sh CONFIG CHECKPOINT GPUS [flags of test.py]; on several machines, on each: NNODES, NODE_RANK,
# MASTER_ADDR, PORT. Without CUDA, GPUS is the number of CPU processes.
set -euo pipefail
[ $# -ge 3 ] || { sed -n 2,3p "$0" | cut -c 3- >&2; exit 2; }
# What is missing is said once, before the processes start.
python "$(dirname "$0")/test.py" "$1" "$2" "${@:4}" --check
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" --nproc_per_node="$3" \
    "$(dirname "$0")/test.py" "$1" "$2" --launcher pytorch "${@:4}"
