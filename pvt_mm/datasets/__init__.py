from .digits import DIGITS, write_digits

__all__ = ['DIGITS', 'write_digits']
