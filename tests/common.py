"""What several test modules import."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
