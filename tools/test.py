"""Tests a checkpoint: ``python tools/test.py --help``."""

from pvt_mm.commands.test import main

if __name__ == '__main__':
    main()
