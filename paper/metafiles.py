"""Writes ``model-index.yml`` and each system's ``configs/<system>/metafile.yml`` from ``paper/paper.yml``.

    python -m paper.metafiles

They have the form of OpenMMLab's: ``mim search pvt_mm`` and the inferencers of ``pvt_mm.apis`` read them.
"""

import yaml

from .rows import ROOT, Row, paper, recipe, table_rows

HEAD = """\
# Written by `python -m paper.metafiles` from paper/paper.yml. The results are the papers'; nobody has measured them
# with this code yet. `Weights` are of mmdet's model zoo, whose own AP stands beside them.
"""
# The metrics in mmengine's log whose figures are listed: OpenMMLab's names of the task and of the metric.
METRICS = {
    'coco/bbox_mAP': ('Object Detection', 'box AP'),
    'coco/segm_mAP': ('Instance Segmentation', 'mask AP'),
    'mIoU': ('Semantic Segmentation', 'mIoU'),
    'accuracy/top1': ('Image Classification', 'Top 1 Accuracy'),
}


def unique_rows() -> list[Row]:
    """The rows of all tables, each as in the first table that has it."""
    rows: dict[str, Row] = {}
    for table in paper()['tables']:
        for row in table_rows(table):
            rows.setdefault(row.key, row)
    return list(rows.values())


def metafiles() -> dict[str, str]:
    """The files' contents by their paths in the repository."""
    rows = unique_rows()
    systems = [system for system in paper()['systems'] if any(row.system == system for row in rows)]
    paths = {system: f'configs/{system}/metafile.yml' for system in systems}
    contents = {path: _metafile(system, rows) for system, path in paths.items()}
    return {
        path: HEAD + yaml.safe_dump(content, sort_keys=False, width=120)
        for path, content in {'model-index.yml': {'Import': list(paths.values())}, **contents}.items()
    }


def _metafile(system: str, rows: list[Row]) -> dict:
    settings = paper()['systems'][system]
    rows = [row for row in rows if row.system == system]
    collection = {
        'Name': settings['title'],
        'Metadata': {'Training Data': _dataset(rows[0])},
        'Paper': _paper(settings['paper'], settings['arxiv']),
    }
    return {'Collections': [collection], 'Models': [_model(row, settings['title']) for row in rows]}


def _model(row: Row, collection: str) -> dict:
    """What a row's figures are of, and where its weights are, if anywhere."""
    settings = recipe(row)
    metadata = {
        'Training Data': _dataset(row),
        'Architecture': [row.family],
        'Training Techniques': [settings['optimizer'], 'Weight Decay'],
        'Batch Size': settings['scale_lr_base'],
        'Epochs': settings.get('epochs'),
        'Iterations': settings.get('iterations'),
        'Parameters': row.params and round(row.params * 1e6),
        'FLOPs': row.gflops and round(row.gflops * 1e9),
    }
    trained = paper()['trained']
    weights = trained['rows'].get(row.key)
    if weights:
        metadata['box AP of the weights'] = weights['AP']
    model = {
        'Name': f'{row.system}_{row.name}',
        'In Collection': collection,
        'Config': row.config,
        'Metadata': {key: value for key, value in metadata.items() if value is not None},
        'Results': _results(row),
        'Weights': weights and f'{trained["folder"]}/{weights["file"]}',
        'Paper': _paper(**paper()['papers']['PVTv2' if row.family == 'PVTv2' else 'PVT']),
    }
    return {key: value for key, value in model.items() if value}


def _results(row: Row) -> list[dict]:
    found = []
    for key, figure in zip(row.metrics.values(), row.figures):
        if key in METRICS and isinstance(figure, float):
            task, name = METRICS[key]
            figure = round(100 - figure, 1) if key == 'accuracy/top1' else figure  # the papers' are errors
            metrics = {f'{name}(ms+flip)' if row.tta else name: figure}
            found.append({'Task': task, 'Dataset': _dataset(row), 'Metrics': metrics})
    return found


def _dataset(row: Row) -> str:
    if row.needs_mmpretrain:
        return 'ImageNet-1k'
    return 'ADE20K' if 'mIoU' in row.metrics.values() else 'COCO'


def _paper(title: str, arxiv: str) -> dict:
    return {'URL': f'https://arxiv.org/abs/{arxiv}', 'Title': title}


def main() -> None:
    for path, content in metafiles().items():
        (ROOT / path).write_text(content)


if __name__ == '__main__':
    main()
