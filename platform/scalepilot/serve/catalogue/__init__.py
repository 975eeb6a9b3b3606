"""The policies that are served: loaded, watched, replaced, rolled back."""
