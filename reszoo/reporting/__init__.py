"""Reports: one HTML template, one set of plots, and the Markdown card of an export."""
