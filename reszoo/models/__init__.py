"""Build models with Keras, deepen and freeze them.

`import reszoo.models` registers the layers that `keras.models.load_model` needs to open a saved
model. `import reszoo` does so too, once Keras is imported.
"""

from reszoo.loading import import_quietly

import_quietly("keras")

from reszoo.models import layers as layers  # noqa: E402
