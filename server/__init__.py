"""The server: audits and publishes a dataset, signs releases, serves them."""
