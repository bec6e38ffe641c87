"""One module a verb of ``bucketsync``."""
