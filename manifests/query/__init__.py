"""The query language: from text to a tree, from values to conditions, from both to ids."""
