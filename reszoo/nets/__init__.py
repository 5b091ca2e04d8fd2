"""How a net is built from its spec: layers, shortcuts, blocks, stems. Keras only."""
