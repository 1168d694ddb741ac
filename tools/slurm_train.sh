#!/usr/bin/env bash
# slurm_train.sh PARTITION JOB_NAME CONFIG [WORK_DIR] [flags of train.py]: submits a training as a batch job.
# Environment: GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), and SRUN_ARGS, flags of sbatch such as --time=8:00:00.
# Slurm warns the job 300 s before its time limit (SRUN_ARGS=--signal=USR1@SECONDS for another time): it saves a
# checkpoint, is queued again and resumes. Its output: slurm-JOB.out (docs/many_processes.md).
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2s/^# \(.*\):.*/slurm_train.sh: usage: \1/p' "$0" >&2
    exit 2
fi
partition=$1 name=$2 config=$3
shift 3
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then set -- --work-dir "$1" "${@:2}"; fi
: "${GPUS:=8}" "${GPUS_PER_NODE:=8}" "${CPUS_PER_TASK:=5}"
# Slurm runs a copy of the batch script: it is told where train.py lies.
# shellcheck disable=SC2086 # SRUN_ARGS holds several flags
exec sbatch --partition="$partition" --job-name="$name" --gres="gpu:$GPUS_PER_NODE" \
    --ntasks="$GPUS" --ntasks-per-node="$GPUS_PER_NODE" --cpus-per-task="$CPUS_PER_TASK" \
    --requeue --open-mode=append --signal=USR1@300 ${SRUN_ARGS:-} \
    "$(dirname "$0")/slurm_job.sh" "$(realpath "$(dirname "$0")/train.py")" "$config" --launcher slurm "$@"
