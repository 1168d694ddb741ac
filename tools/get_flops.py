"""Counts parameters and multiply-adds: ``python tools/get_flops.py --help``."""

from pvt_mm.commands.get_flops import main

if __name__ == '__main__':
    main()
