"""Latency and throughput of a bundle, in process and behind a server."""
