"""Bundles: written, amended, compared, signed, pushed and pulled."""
