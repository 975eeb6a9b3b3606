"""From a request's observation to the answer."""
