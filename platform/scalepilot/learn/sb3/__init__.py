"""Stable-Baselines3 as trainers: the cross-check of our own engine."""
