#!/usr/bin/env bash
# slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [flags of test.py]: tests in the foreground.
# Environment: GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), and SRUN_ARGS, flags of srun.
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n '2s/^# \(.*\):.*/slurm_test.sh: usage: \1/p' "$0" >&2
    exit 2
fi
: "${GPUS:=8}" "${GPUS_PER_NODE:=8}" "${CPUS_PER_TASK:=5}"
# shellcheck disable=SC2086 # SRUN_ARGS holds several flags
exec srun --partition="$1" --job-name="$2" --gres="gpu:$GPUS_PER_NODE" \
    --ntasks="$GPUS" --ntasks-per-node="$GPUS_PER_NODE" --cpus-per-task="$CPUS_PER_TASK" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/test.py" "$3" "$4" --launcher slurm "${@:5}"
