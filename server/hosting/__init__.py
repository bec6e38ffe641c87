"""Hosting: a repository over HTTP, with virtual packs, ranges and metrics."""
