"""Files on this machine: whose they are, and how stored ones are read."""
