# ResNet101 with torchvision's ImageNet weights, by their address: torchvision://resnet101 needs torchvision.
backbone = dict(depth=101, init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet101-63fe2227.pth'))
