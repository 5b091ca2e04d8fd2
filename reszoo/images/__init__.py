"""Images: file formats, decoding, resizing, and preprocessing for a model's input."""
