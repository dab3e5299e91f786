"""Tasks: what a batch is turned into, a loss."""
