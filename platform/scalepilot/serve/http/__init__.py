"""HTTP: requests, bodies, keys, headers, and the pages about them."""
