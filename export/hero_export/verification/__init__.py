"""``hero-export verify``: every variant of a bundle against the model in PyTorch, number by number and then on its task."""
