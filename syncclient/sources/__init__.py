"""Where bytes come from: HTTP hosts and other trees, behind one small protocol."""
