"""Draws what training sees: ``python tools/browse_data.py --help``."""

from pvt_mm.commands.browse_data import main

if __name__ == '__main__':
    main()
