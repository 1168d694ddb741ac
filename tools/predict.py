"""Draws what a model finds in images: ``python tools/predict.py --help``."""

from pvt_mm.commands.predict import main

if __name__ == '__main__':
    main()
