"""A mirror of container registries."""

__version__ = "0.1.0"
