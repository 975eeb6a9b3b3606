"""Load: a workload's requests, sent to a service in real time, and what came back."""
