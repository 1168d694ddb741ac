"""The report of a training run: one HTML file in its work directory."""

from .hook import ReportHook
from .mistakes import Mistakes

__all__ = ['Mistakes', 'ReportHook']
