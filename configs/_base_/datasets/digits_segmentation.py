# Scenes of handwritten digits in ADE20K's layout, 128x128 px: background and ten digits; written by
# tools/make_digits.py.
_base_ = 'mmseg::_base_/datasets/ade20k.py'

data_root = 'data/digits/ADEChallengeData2016'
data_source = 'pvt-mm make_digits writes it to data/digits'
metainfo = dict(
    classes=('background', *'0123456789'),
    palette=[
        [40, 40, 40],
        [230, 25, 75],
        [60, 180, 75],
        [255, 225, 25],
        [0, 130, 200],
        [245, 130, 48],
        [145, 30, 180],
        [70, 240, 240],
        [240, 50, 230],
        [210, 245, 60],
        [0, 128, 128],
    ],
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
test_pipeline = train_pipeline
# no workers: on 2 cores they take from training more time than they save
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset', reduce_zero_label=True, data_root=data_root, metainfo=metainfo, pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='BaseSegDataset', reduce_zero_label=True, data_root=data_root, metainfo=metainfo, pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader
