"""The whole of HERO SDK on a small corpus: `python -m demo`."""
