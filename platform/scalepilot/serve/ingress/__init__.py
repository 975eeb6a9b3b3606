"""Who listens: HAProxy in front of the replicas, or Serve's own proxy, and what either counts."""
