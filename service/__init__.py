"""Serve a Domain Transfer Network over HTTP. Imports no torch."""

__version__ = "0.1.0"
