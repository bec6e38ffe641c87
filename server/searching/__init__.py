"""Searching: queries on the tag indexes of a repository, each in a process of its own."""
