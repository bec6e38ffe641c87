"""The client as a peer: fetching from others, and offering them what the tree holds."""
