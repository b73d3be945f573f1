"""Separable convolutions that keep their promise: know, convert, run and prove."""

__version__ = "0.1.0"
