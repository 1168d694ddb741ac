#!/usr/bin/env bash
# The batch job that slurm_train.sh submits: slurm_job.sh TRAIN.PY CONFIG [flags of train.py].
set -euo pipefail
# train.py refuses a work dir from which a job that was queued again would resume another run.
export MAX_RESTARTS=1
python "$@" --check
# Code 75 is train.py's for: saved on a signal. The first process asks for the next turn, when it has saved; the others
# end quietly, since a code other than 0 kills the step at once. Slurm's warning goes to the shells, too: they wait.
exec srun --kill-on-bad-exit=1 bash -c '
    trap : USR1
    code=0
    python -u "$@" || code=$?
    [ $code = 75 ] || exit $code
    [ "$SLURM_PROCID" != 0 ] || scontrol requeue "$SLURM_JOB_ID"' train "$@"
