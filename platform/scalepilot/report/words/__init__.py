"""Tables and sentences: for the terminal, for documents."""
