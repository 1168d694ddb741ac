"""AP and IoU by class in every run: printed, and kept with the other figures in the run's JSON files."""

from mmengine.config import Config, ConfigDict
from mmengine.utils import import_modules_from_strings

CLASS_IOU = 'pvt_mm.engine.class_iou'
# What mmengine logs as the mean of the last steps; not the figure of a class, even if its name is 'timer'.
MEANS = r'^(?!.*_(precision|IoU)$).*(loss|time|data_time|grad_norm).*'


def set_classwise(cfg: Config) -> None:
    """Turns on ``classwise`` of mmdet's CocoMetric where the config leaves it open, and keeps mmseg's IoU by class.

    ``save_best='auto'`` takes the first figure, which would be the AP of one class: it becomes the name of the mean.
    """
    for key in ('val_evaluator', 'test_evaluator'):
        for metric in list_metrics(cfg.get(key)):
            if _kind(metric) == 'CocoMetric':
                metric.setdefault('classwise', True)
            elif _kind(metric) == 'IoUMetric':
                metric.type = 'PVTIoUMetric'
                _import(cfg, CLASS_IOU)
    cfg.setdefault('log_processor', {}).setdefault('mean_pattern', MEANS)
    hook = cfg.get('default_hooks', {}).get('checkpoint') or {}
    metrics = list_metrics(cfg.get('val_evaluator'))
    if hook.get('save_best') == 'auto' and metrics and _kind(metrics[0]) == 'CocoMetric':
        task, item = metrics[0].get('metric', 'bbox'), (metrics[0].get('metric_items') or ['mAP'])[0]
        hook.save_best = f'{metrics[0].get("prefix") or "coco"}/{task if isinstance(task, str) else task[0]}_{item}'


def _import(cfg: Config, module: str) -> None:
    """Imports a module, now and in the config that mmengine leaves in the work dir."""
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else imports
    if module not in imports:
        cfg.custom_imports = {**(cfg.get('custom_imports') or {}), 'imports': [*imports, module]}
    import_modules_from_strings(module)


def list_metrics(evaluator: list | dict | None) -> list[ConfigDict]:
    """The metrics of an evaluator, one or several."""
    return list(evaluator) if isinstance(evaluator, list | tuple) else [evaluator] if evaluator else []


def _kind(metric: ConfigDict) -> str:
    return str(metric.get('type')).rpartition('.')[2]
