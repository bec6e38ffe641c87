"""What a dataset's metadata says of its posts: rows of JSON in, columns out."""
