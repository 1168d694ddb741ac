"""Writes a trained model as ONNX, OpenVINO or a torch.export program: ``python tools/export.py --help``."""

from pvt_mm.commands.export import main

if __name__ == '__main__':
    main()
