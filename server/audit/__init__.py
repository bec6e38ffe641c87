"""The audit: metadata against files, and what is wrong with each file, as tables and a page."""
