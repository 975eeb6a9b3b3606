"""One episode, step by step: in the terminal, as a page, as a film."""
