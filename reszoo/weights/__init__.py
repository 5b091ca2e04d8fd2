"""Published weights: which there are, where they lie, how they are fetched, read and fitted to a net. No net is built here."""
