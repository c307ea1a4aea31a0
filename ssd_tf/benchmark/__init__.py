"""The speed of every stage on this machine."""
