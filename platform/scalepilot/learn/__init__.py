"""Training: a config, a seed and a run folder in; a policy artifact out."""
