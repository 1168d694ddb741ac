"""Draws where each stage of a PVT looks: ``python tools/attention.py --help``."""

from pvt_mm.commands.attention import main

if __name__ == '__main__':
    main()
