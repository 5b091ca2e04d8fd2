"""Which nets exist: specs, the catalogue of names, and counts by arithmetic. Standard library only."""
