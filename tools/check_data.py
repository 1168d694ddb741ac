"""Looks at all data of a config: ``python tools/check_data.py --help``."""

from pvt_mm.commands.check_data import main

if __name__ == '__main__':
    main()
