"""The tag index of a release: what a query asks for, in frames that are fetched singly."""
