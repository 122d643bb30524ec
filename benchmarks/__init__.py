"""Measurements of the service beside others; nothing here is needed to serve."""
