"""Published weights: the catalog, downloads, readers of files, and conversion to models."""
