"""BitTorrent metainfo (BEP 3, 47 and 52), written and read without a BitTorrent library."""
