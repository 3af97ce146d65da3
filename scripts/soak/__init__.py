"""A real server under everything that clients and operators do to it: `python -m scripts.soak`."""
