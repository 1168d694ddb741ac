# A ResNet on ImageNet-1K by the PVTs' recipe.
_base_ = [
    '../models/classifier_resnet.py',
    '../datasets/imagenet.py',
    '../schedules/adamw_300e.py',
    '../runtimes/mmpretrain.py',
]
