# ResNet50 with torchvision's ImageNet weights, by their address: torchvision://resnet50 needs torchvision.
backbone = dict(depth=50, init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'))
