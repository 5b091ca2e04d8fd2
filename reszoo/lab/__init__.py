"""Experiments on the question the project exists for: why should a block learn F(x) = H(x) - x?"""

from reszoo.loading import import_quietly

import_quietly("keras")
