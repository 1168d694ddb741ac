"""The weights that the authors published, by name: ``pvt://small``, ``pvt://v2_b2``."""

from ..errors import CheckpointError

PUBLISHED = {
    name: f'https://github.com/whai362/PVT/releases/download/v2/pvt_{name}.pth'
    for name in (
        *('tiny', 'small', 'medium', 'large'),
        *('v2_b0', 'v2_b1', 'v2_b2_li', 'v2_b2', 'v2_b3', 'v2_b4', 'v2_b5'),
    )
}


def published_address(name: str) -> str:
    """The https address of the published weights ``name``.

    Raises:
        CheckpointError: There are none of this name.
    """
    if name not in PUBLISHED:
        known = ', '.join(f'pvt://{known}' for known in PUBLISHED)
        raise CheckpointError(f'checkpoint pvt://{name} is not among the published ones: {known}')
    return PUBLISHED[name]
