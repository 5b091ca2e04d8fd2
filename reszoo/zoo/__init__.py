"""The models: names, specifications, and sizes by arithmetic. No Keras, no TensorFlow."""
