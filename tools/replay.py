"""Runs a training step that was not finite again: ``python tools/replay.py --help``."""

from pvt_mm.commands.replay import main

if __name__ == '__main__':
    main()
