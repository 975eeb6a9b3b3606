"""Scalepilot trains autoscaling policies, proves what they are worth and serves them."""

__version__ = "0.1.0"

__all__ = ["__version__"]
