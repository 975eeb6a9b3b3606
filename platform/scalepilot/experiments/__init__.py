"""Experiments: a run, a study of several, a sweep, a comparison."""
