"""Intervals, aggregates and what they are resampled from."""
