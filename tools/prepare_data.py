"""Checks a dataset: ``python tools/prepare_data.py --help``."""

from pvt_mm.commands.prepare_data import main

if __name__ == '__main__':
    main()
