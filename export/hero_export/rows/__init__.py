"""The shape of rows: what it follows from, and what it wastes."""
