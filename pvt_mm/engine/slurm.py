"""The processes that Slurm's ``srun`` started."""

import os
import subprocess

# below the ports that Linux gives to outgoing connections, from 32768 on
PORTS = range(12000, 32000)


def read_slurm() -> None:
    """Sets what torch's process group reads (``RANK``, ``MASTER_ADDR`` ...) from Slurm's variables.

    ``MASTER_ADDR`` is the job's first machine. ``MASTER_PORT`` follows from the job's number, so that two jobs on one
    machine do not meet. Where the environment has these two, they are kept.
    """
    job = os.environ
    if 'MASTER_ADDR' not in job:
        command = ['scontrol', 'show', 'hostnames', job['SLURM_NODELIST']]
        job['MASTER_ADDR'] = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    job.setdefault('MASTER_PORT', str(PORTS[int(job['SLURM_JOB_ID']) % len(PORTS)]))
    job.update(RANK=job['SLURM_PROCID'], LOCAL_RANK=job['SLURM_LOCALID'], WORLD_SIZE=job['SLURM_NTASKS'])
