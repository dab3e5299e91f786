"""The groups of commands of ``hero-export``."""
