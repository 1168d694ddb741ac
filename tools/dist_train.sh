#!/usr/bin/env bash
# dist_train.sh CONFIG GPUS [flags of train.py]: trains with a process for each of GPUS cards; without CUDA, with GPUS
# processes on the CPU. Environment: PORT; MAX_RESTARTS; on several machines, on each, NNODES, NODE_RANK, MASTER_ADDR
# (docs/many_processes.md).
exec python -P -m pvt_mm.commands.dist "$(dirname "$0")/train.py" "$@"
