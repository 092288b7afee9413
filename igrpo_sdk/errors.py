"""The error tree: every error a user can cause or meet, each with a message that says what to do.

A message names the argument, the value that was given and the remedy. Broken invariants of the code itself
are `assert`, never one of these.
"""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "DependencyError",
    "FaceError",
    "HubError",
    "IgrpoError",
    "InputError",
    "NumericsError",
    "ResourceError",
    "WeightsError",
]


class IgrpoError(Exception):
    """Base of every error this package raises on purpose: `except IgrpoError` catches them all."""


class InputError(IgrpoError, ValueError):
    """An argument, a file or a setting from the user is not usable. Raised before any model runs."""


class WeightsError(IgrpoError, ValueError):
    """A model directory or an adapter is missing, damaged, or does not fit the model it was given to."""


class ResourceError(IgrpoError, RuntimeError):
    """The machine lacks what the call needs: memory, disk space, write permission, or a free pipeline."""


class NumericsError(IgrpoError, ArithmeticError):
    """A tensor stopped being finite. Nothing is written: a black video would hide the fault."""


class Cancelled(IgrpoError):
    """The caller asked to stop; the work ended before its next step and left nothing behind."""


class DependencyError(IgrpoError, ImportError):
    """An optional package is not installed; the message gives the extra that brings it."""


class FaceError(IgrpoError, ValueError):
    """A reference picture does not show exactly one usable face."""


class HubError(IgrpoError, OSError):
    """A repository or a revision on the Hub cannot be had; the message says whether to log in, retry or
    rename.
    """
