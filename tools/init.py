"""Writes the config for your own images: ``python tools/init.py --help``."""

from pvt_mm.commands.init import main

if __name__ == '__main__':
    main()
