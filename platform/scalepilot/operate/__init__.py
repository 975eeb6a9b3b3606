"""A policy runs a live deployment: what is measured, decided, allowed and written, and why."""
