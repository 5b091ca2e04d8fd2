"""Data sets, augmentation and input pipelines."""
