"""The tracker: who has which torrent of this repository."""
