"""Whole models outside of PyTorch: what ``pvt-mm export`` is made of."""
