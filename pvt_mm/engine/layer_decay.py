"""Layer-wise learning-rate decay: the deeper a layer, the larger its learning rate."""

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from ..errors import SettingError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module('PVTLayerDecayConstructor')
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor that also multiplies learning rates by ``layer_decay_rate`` per layer (BEiT, 3.2).

    A parameter at depth d of a backbone with n depths gets ``layer_decay_rate ** (n - 1 - d)`` times the learning rate
    that the other options of ``paramwise_cfg`` give it; one outside of it, as in neck and head, that learning rate. The
    depths are those that the backbone's ``get_layer_depth`` tells: mmdet's and mmseg's own constructors know ConvNeXt
    alone, among others, and raise NotImplementedError. In a config::

        optim_wrapper = dict(constructor='PVTLayerDecayConstructor', paramwise_cfg=dict(layer_decay_rate=0.9))

    Raises:
        SettingError: ``layer_decay_rate`` is missing or not above 0 and at most 1.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        # not in add_params, which mmengine does not call where there are no options
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if not isinstance(rate, int | float) or not 0 < rate <= 1:
            raise SettingError(
                f'optim_wrapper.paramwise_cfg.layer_decay_rate={rate} must be above 0 and at most 1, as in '
                "optim_wrapper=dict(constructor='PVTLayerDecayConstructor', paramwise_cfg=dict(layer_decay_rate=0.9))"
            )

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Adds a parameter group for each parameter of ``module`` to ``params``.

        Raises:
            SettingError: No part of the model tells the depth of its layers.
        """
        super().add_params(params, module, prefix, **kwargs)
        if prefix:
            return  # called by itself, for a child
        rate, scales = self.paramwise_cfg['layer_decay_rate'], {}
        for name, part in module.named_modules():
            if hasattr(part, 'get_layer_depth') and part is not module:
                for key, parameter in part.named_parameters():
                    depth, depths = part.get_layer_depth(f'{name}.{key}', f'{name}.')
                    scales[parameter] = rate ** (depths - 1 - depth)
        if not scales:
            raise SettingError(
                f'PVTLayerDecayConstructor: no part of the {type(module).__name__} has get_layer_depth, as PVT has; '
                'leave optim_wrapper.constructor out'
            )
        for group in params:
            (parameter,) = group['params']
            group['lr'] = group.get('lr', self.base_lr) * scales.get(parameter, 1.0)
