"""Detection metrics; NumPy only, nothing here knows a network or a file."""
