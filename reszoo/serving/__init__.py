"""An exported net tried out over HTTP, on this machine alone."""
