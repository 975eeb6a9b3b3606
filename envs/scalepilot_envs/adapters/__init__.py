"""Environments of others as policies know them: flat fields, discrete or continuous actions, described by their spaces."""
