"""Does the schedule of a config fit the length of its run?"""

from collections.abc import Callable, Iterator

from mmengine.config import Config

TOLERANCE = 0.05  # of the run's length: a schedule in iterations need not know the number of images


def check_schedule(cfg: Config, epoch_length: int | None, log: Callable[[str], None] = print) -> None:
    """Warns of a learning rate that does not get where its schedule leads within the run.

    Args:
        cfg: The config.
        epoch_length: The iterations of an epoch. None where it is unknown: iterations and epochs are not compared.
        log: Receives the warnings.
    """
    train_cfg = cfg.get('train_cfg') or {}
    epochs, iterations = train_cfg.get('max_epochs'), train_cfg.get('max_iters')
    run = f'{epochs} epochs' if epochs else f'{iterations} iterations'
    if epochs and epoch_length:
        iterations = epochs * epoch_length
        run += f' of {epoch_length} iterations'
    schedulers = list(_schedulers(cfg.get('param_scheduler'), 'param_scheduler'))
    rate = ((cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr')
    for key, entry in schedulers:
        if rate and (entry.get('eta_min') or 0) >= rate:  # made for another optimizer
            log(
                f'WARNING: {key} ends at eta_min={entry["eta_min"]}, and so does not lower the learning rate of '
                f'{rate}: set {key}.eta_min=0'
            )
        by_epoch = entry.get('by_epoch', True)
        total = epochs if by_epoch else iterations
        if by_epoch and iterations and not epochs:
            log(f'WARNING: {key} counts epochs, and the run iterations: it never steps. Set {key}.by_epoch=False')
        if not total:
            continue
        unit = 'epoch' if by_epoch else 'iteration'
        late = [step for step in entry.get('milestones', ()) if step >= total]
        if late:
            log(f'WARNING: {key}: the run has {run}, so the milestones {late} change nothing: set {key}.milestones')
        begin, option = entry.get('begin', 0), 'T_max' if 'T_max' in entry else 'end'
        end = begin + entry['T_max'] if option == 'T_max' else entry.get('end')
        direction = _direction(entry)
        if not end or not direction:
            continue
        if direction == 'raises' and end >= total:
            log(
                f'WARNING: the run ends inside its own warm-up: {key} raises the learning rate until {unit} {end}, and '
                f'the run has {run}: set {key}.end={max(1, total // 10)}, or train longer'
            )
        elif direction == 'lowers':
            goes_on = any(other.get('begin', 0) >= end for _, other in schedulers)
            if end > total * (1 + TOLERANCE) or end < total * (1 - TOLERANCE) and not goes_on:
                log(
                    f'WARNING: {key} lowers the learning rate until {unit} {end}, and the run has {run}: '
                    f'set {key}.{option}={total - begin * (option == "T_max")}'
                )


def _schedulers(settings, path: str) -> Iterator[tuple[str, dict]]:
    """Each scheduler with its path; several optimizers have a list each."""
    if isinstance(settings, dict) and 'type' in settings:
        yield path, settings
    elif isinstance(settings, (dict, list, tuple)):
        for key, item in settings.items() if isinstance(settings, dict) else enumerate(settings):
            yield from _schedulers(item, f'{path}.{key}')


def _direction(entry: dict) -> str:
    """What a scheduler does to the learning rate from its begin to its end; '' where it depends."""
    name = getattr(entry['type'], '__name__', str(entry['type'])).rpartition('.')[2]
    if name == 'QuadraticWarmupLR':
        return 'raises'
    if name in ('CosineAnnealingLR', 'PolyLR'):
        return 'lowers'
    if name == 'LinearLR':
        start, end = entry.get('start_factor', 1 / 3), entry.get('end_factor', 1.0)
        return 'raises' if start < end else 'lowers'
    return 'raises' if name == 'ConstantLR' and entry.get('factor', 1 / 3) < 1 else ''
