"""Starts the processes of a run with torchrun: what ``tools/dist_train.sh`` and ``tools/dist_test.sh`` call."""

import argparse
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from ..errors import SettingError
from .launch import one_line_errors

ARGUMENTS = dict(train=('CONFIG', 'GPUS'), test=('CONFIG', 'CHECKPOINT', 'GPUS'))
# torchrun hands these to all processes; a training saves on them (docs/many_processes.md). SIGUSR1 is Slurm's warning.
SIGNALS = 'SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1'
EX_TEMPFAIL = 75  # train.py's own code for: saved on a signal, resume it


def split_arguments(command: str, args: list[str]) -> tuple[list[str], int, list[str]]:
    """The files, the number of processes and the flags among the arguments of ``dist_<command>.sh``.

    torchrun's ``--max-restarts`` among the flags goes into the environment, from where ``train.py`` reads it too.

    Raises:
        SettingError: An argument is missing, or they are in another order.
    """
    names = ARGUMENTS[command]
    usage = f'dist_{command}.sh {" ".join(names)} [flags of {command}.py]'
    positional, flags = args[: len(names)], args[len(names) :]
    if len(positional) < len(names) or any(value.startswith('-') for value in positional):
        raise SettingError(f'usage: {usage}')
    *files, number = positional
    if not number.isdecimal() or int(number) == 0:
        raise SettingError(f'GPUS is {number}, not a number above 0: {usage}')
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--max-restarts', metavar='MAX_RESTARTS')
    own, flags = parser.parse_known_args(flags)
    if own.max_restarts is not None:
        os.environ['MAX_RESTARTS'] = own.max_restarts
    return files, int(number), flags


def read_number(name: str, default: int, low: int, high: int = 9999) -> int:
    """A whole number of the environment.

    Raises:
        SettingError: It is none, or not in ``low`` to ``high``, both included.
    """
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or not low <= int(text) <= high:
        raise SettingError(f'{name}={text} in the environment must be a whole number from {low} to {high}')
    return int(text)


def find_rendezvous() -> list[str]:
    """torchrun's flags for how the processes find each other, from mmdetection's environment variables.

    Raises:
        SettingError: One is missing or makes no sense, or the port is in use.
    """
    nodes = read_number('NNODES', 1, 1)
    if nodes == 1 and not os.environ.get('PORT'):
        # a free port; localhost, because the machine's own name may lead nowhere
        return ['--standalone', '--local-addr=localhost']
    lacking = [name for name in ('NODE_RANK', 'MASTER_ADDR') if nodes > 1 and not os.environ.get(name)]
    if lacking:
        raise SettingError(
            f'NNODES={nodes} needs {" and ".join(lacking)}: on each machine set NODE_RANK, 0 to {nodes - 1}, and '
            'MASTER_ADDR, the address of the machine with NODE_RANK=0'
        )
    port, rank = read_number('PORT', 29500, 1, 65535), read_number('NODE_RANK', 0, 0, nodes - 1)
    if rank == 0:  # it listens
        try:
            socket.create_server(('', port)).close()
        except OSError as error:
            others = ', the same on each machine' if nodes > 1 else ', or none: then a free one is taken'
            reason = os.strerror(error.errno)
            raise SettingError(f'port {port} cannot be used ({reason}): give another PORT{others}') from error
    address = os.environ['MASTER_ADDR'] if nodes > 1 else '127.0.0.1'
    return [f'--nnodes={nodes}', f'--node-rank={rank}', f'--master-addr={address}', f'--master-port={port}']


def describe_failure(error: ChildFailedError) -> tuple[str, int]:
    """Which process ended a run and how, and the exit code for it.

    A process that is killed takes the others along: torchrun times their ends in whole seconds, so the killed one is
    looked for first. It ends what is left with SIGTERM.
    """
    killed = [rank for rank, end in error.failures.items() if end.exitcode < 0 and end.signal_name() != 'SIGTERM']
    rank = killed[0] if killed else error.get_first_failure()[0]
    failure = error.failures[rank]
    what = f'was killed by {failure.signal_name()}' if failure.exitcode < 0 else f'ended with code {failure.exitcode}'
    where = 'what it said is above, and in the newest *.log of the work dir'
    message = f'rank {rank} (process {failure.pid} on {socket.gethostname()}) {what}, and the run with it; {where}'
    return message, 128 - failure.exitcode if failure.exitcode < 0 else failure.exitcode


@one_line_errors
def main() -> None:
    script, *args = sys.argv[1:]
    command = Path(script).stem
    sys.argv[0] = f'dist_{command}.sh'
    files, processes, flags = split_arguments(command, args)
    rendezvous, restarts = find_rendezvous(), read_number('MAX_RESTARTS', 0, 0)
    script_args = [script, *files, '--launcher', 'pytorch', *flags]
    # What is missing is said once, before the processes start.
    world = dict(LOCAL_WORLD_SIZE=str(processes), WORLD_SIZE=str(processes * read_number('NNODES', 1, 1)))
    checked = subprocess.run([sys.executable, *script_args, '--check'], env=os.environ | world)
    if checked.returncode:
        sys.exit(checked.returncode)
    try:
        run(
            parse_args(
                [
                    *rendezvous,
                    f'--nproc-per-node={processes}',
                    f'--max-restarts={restarts}',
                    f'--signals-to-handle={SIGNALS}',
                    *script_args,
                ]
            )
        )
    except ChildFailedError as error:
        message, code = describe_failure(error)
        print(f'{sys.argv[0]}: {message}', file=sys.stderr)
        sys.exit(code)
    except SignalException as end:
        print(f'{sys.argv[0]}: {end.sigval.name} ended the run', file=sys.stderr)
        saved = command == 'train' and end.sigval in (signal.SIGTERM, signal.SIGUSR1)
        sys.exit(EX_TEMPFAIL if saved else 128 + end.sigval)


if __name__ == '__main__':
    main()
