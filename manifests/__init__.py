"""The release format: bytes in, values out.

Nothing here opens a file, a socket or a clock; both the server and the client import this package
and it imports neither.  ``docs/reference/format.md`` has the byte tables.
"""
