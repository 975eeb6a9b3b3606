"""Pages that need no server and no network."""
