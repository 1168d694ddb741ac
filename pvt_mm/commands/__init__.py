"""The commands, a module each. ``pvt-mm NAME`` runs one, and so does ``tools/NAME.py`` in the repository."""

import sys
from importlib import import_module

COMMANDS = (
    'init',
    'train',
    'test',
    'predict',
    'attention',
    'export',
    'convert_checkpoint',
    'get_flops',
    'check_data',
    'browse_data',
    'prepare_data',
    'make_digits',
    'replay',
)


def main() -> None:
    """Runs the command that the first argument names."""
    name = sys.argv[1].replace('-', '_') if len(sys.argv) > 1 else ''
    if name not in COMMANDS:
        sys.exit(f'usage: pvt-mm {{{",".join(COMMANDS)}}} ... (pvt-mm NAME --help explains one)')
    sys.argv[:2] = [f'pvt-mm {name}']
    import_module(f'{__name__}.{name}').main()
