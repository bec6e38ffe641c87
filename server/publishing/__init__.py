"""Publishing: from a tree to a signed release, over a pool of workers."""
