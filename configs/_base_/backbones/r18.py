# ResNet18 with torchvision's ImageNet weights, by their address: torchvision://resnet18 needs torchvision.
backbone = dict(depth=18, init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet18-f37072fd.pth'))
