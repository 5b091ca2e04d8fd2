"""reszoo: residual networks in TensorFlow and Keras, to build, train, measure, grow and ship."""

from __future__ import annotations

import os

__version__ = "0.1.0"

# TensorFlow leaves oneDNN off on CPUs without AVX-512, at half the speed; it reads this when it loads.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
