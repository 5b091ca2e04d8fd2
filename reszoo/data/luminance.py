"""How red, green and blue make up grey."""

from __future__ import annotations

# Weights in luminance (ITU-R BT.601), as in the JPEG format itself.
LUMINANCE = (0.299, 0.587, 0.114)
