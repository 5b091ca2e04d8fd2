"""How a net is built from its spec: layers, shortcuts, blocks, stems. Keras only.

`import reszoo.nets` registers the layers that `keras.models.load_model` needs to open a saved net.
"""

from reszoo.nets import layers as layers
