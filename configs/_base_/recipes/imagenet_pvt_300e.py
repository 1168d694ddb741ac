# A PVT on ImageNet-1K as published: DeiT's recipe.
_base_ = [
    '../models/classifier_pvt.py',
    '../datasets/imagenet.py',
    '../schedules/adamw_300e.py',
    '../runtimes/mmpretrain.py',
]
