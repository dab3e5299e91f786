"""The precision of a bundle's graphs: casting them to half precision, quantising them, and reading back what they came out as."""
