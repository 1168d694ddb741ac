#!/usr/bin/env bash
# dist_train.sh CONFIG GPUS [flags of train.py]: trains with a process for each of GPUS cards; without CUDA, with GPUS
# processes on the CPU. --max-restarts N starts them again when one dies. Environment: PORT; on several machines, on
# each, NNODES, NODE_RANK, MASTER_ADDR (docs/many_processes.md).
exec python -P -m pvt_mm.commands.dist "$(dirname "$0")/train.py" "$@"
