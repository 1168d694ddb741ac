# The first 16 scenes of handwritten digits, to be overfitted: trained on 200 times an epoch, and tested on.
_base_ = 'digits_detection.py'

train_dataloader = dict(
    batch_sampler=None,
    dataset=dict(
        _delete_=True, type='RepeatDataset', times=200, dataset=dict(**_base_.train_dataloader.dataset, indices=16)
    ),
)
val_dataloader = dict(
    dataset=dict(
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        indices=16,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(128, 128), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances'),
            ),
        ],
    )
)
test_dataloader = val_dataloader
# CocoMetric takes the truth of these 16 from the samples: the annotation file has that of all scenes.
val_evaluator = dict(ann_file=None)
test_evaluator = val_evaluator
