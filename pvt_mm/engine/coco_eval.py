"""COCO's figures from faster-coco-eval, where it is installed."""

import sys

from mmengine.evaluator import Evaluator
from mmengine.logging import print_log


def choose_coco_eval(evaluator: Evaluator, fast: bool = True) -> None:
    """Chooses the package that counts for every ``CocoMetric`` of this process, and logs which it is.

    Args:
        evaluator: Nothing is done or logged where it has no ``CocoMetric``.
        fast: Take faster-coco-eval, if it can be imported.
    """
    coco_metric = sys.modules.get('mmdet.evaluation.metrics.coco_metric')
    if coco_metric is None or not any(isinstance(metric, coco_metric.CocoMetric) for metric in evaluator.metrics):
        return
    fault = use_coco_eval(fast)
    who = f"pycocotools counts COCO's figures: {fault}" if fault else "faster-coco-eval counts COCO's figures"
    print_log(who, logger='current')


def use_coco_eval(fast: bool = True) -> str | None:
    """Has mmdet's ``CocoMetric`` count with faster-coco-eval: pycocotools' figures, several times as fast.

    Returns:
        Why pycocotools counts; None where faster-coco-eval does.
    """
    from mmdet.datasets.api_wrappers import COCOeval
    from mmdet.evaluation.metrics import coco_metric

    coco_metric.COCOeval = COCOeval
    if not fast:
        return 'the config says fast_coco_eval=False'
    try:
        from faster_coco_eval import COCOeval_faster
    except Exception as error:  # a library that its compiled part needs can be missing, or of another version
        if isinstance(error, ModuleNotFoundError) and error.name == 'faster_coco_eval':
            return "faster-coco-eval is not installed, which is faster: pip install 'pvt_mm[fast_eval]'"
        return f'faster-coco-eval cannot be imported ({type(error).__name__}: {str(error).partition(chr(10))[0]})'

    class FastCOCOeval(COCOeval_faster):
        summarize = COCOeval.summarize  # its own gives AP with as many detections of an image as AR's last

    coco_metric.COCOeval = FastCOCOeval
    return None
