"""What a competent person would write first, with the same model and the same request: the rivals of `benchmarks.serve`."""
