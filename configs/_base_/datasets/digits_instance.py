# Scenes of handwritten digits with their masks.
_base_ = 'digits_detection.py'

# RLE masks need poly2mask=True, mmdet's default: with False it ignores every instance without a word
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='Resize', scale=(128, 128), keep_ratio=True),
            dict(type='PackDetInputs'),
        ]
    )
)
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
