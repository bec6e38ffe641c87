"""The client: fetches releases, keeps a tree up to date, proves every byte of it."""
