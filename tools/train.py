"""Trains a model of a config: ``python tools/train.py --help``."""

from pvt_mm.commands.train import main

if __name__ == '__main__':
    main()
