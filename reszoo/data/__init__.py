"""Datasets: sources, splits, augmentation and batches."""
