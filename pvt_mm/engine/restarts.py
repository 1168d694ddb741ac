"""Processes that torchrun starts again."""

import os

from torch.distributed import PrefixStore, rendezvous


def restart_store() -> dict:
    """What ``init_process_group`` needs so that processes started again do not meet the addresses of those before.

    torchrun's store outlives its processes, with what each said about itself under the same name: one that is back
    first would call a process that is dead (pytorch/pytorch#135712). Here each start has names of its own.

    Returns:
        ``store``, ``rank`` and ``world_size``; nothing, where the run is not started again (``MAX_RESTARTS``).
    """
    if not int(os.environ.get('MAX_RESTARTS') or 0):
        return {}
    store, rank, world_size = next(rendezvous('env://'))
    store = PrefixStore(f'start {os.environ["TORCHELASTIC_RESTART_COUNT"]}', store)
    return dict(store=store, rank=rank, world_size=world_size)
