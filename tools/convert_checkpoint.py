"""Converts a checkpoint to another library's names: ``python tools/convert_checkpoint.py --help``."""

from pvt_mm.commands.convert_checkpoint import main

if __name__ == '__main__':
    main()
