"""Claims of the literature on residual learning, each measured again by one command."""
