"""Writes the embedded dataset: ``python tools/make_digits.py --help``."""

from pvt_mm.commands.make_digits import main

if __name__ == '__main__':
    main()
