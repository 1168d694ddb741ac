"""``--vis``: what a run logs goes to a dashboard too."""

from mmengine.config import Config, ConfigDict

# What mmengine calls its backends for them.
BACKENDS = dict(tensorboard='TensorboardVisBackend', wandb='WandbVisBackend', mlflow='MLflowVisBackend')


def add_backend(cfg: Config, name: str) -> None:
    """Adds mmengine's backend to the visualizer of the config; ``check_backends`` says where its package is missing."""
    visualizer = cfg.setdefault('visualizer', ConfigDict(type='Visualizer'))
    others = visualizer.get('vis_backends') or [dict(type='LocalVisBackend')]
    visualizer.vis_backends = [*others, dict(type=BACKENDS[name])]
