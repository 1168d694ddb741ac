"""mmseg's IoU, by class as well. Imported for a segmenter only: ``import pvt_mm`` imports no mmseg."""

from mmengine.registry import METRICS
from mmseg.evaluation import IoUMetric


@METRICS.register_module('PVTIoUMetric')
class ClassIoUMetric(IoUMetric):
    """mmseg's metric that returns the IoU of each class too, which mmseg prints only, under ``NAME_IoU`` in percent."""

    def compute_metrics(self, results: list) -> dict[str, float]:
        metrics = super().compute_metrics(results)
        if not self.format_only:
            intersect, union, _, _ = map(sum, zip(*results))
            for name, iou in zip(self.dataset_meta['classes'], intersect / union):  # NaN for a class never seen
                metrics[f'{name}_IoU'] = round(iou.item() * 100, 2)
        return metrics
