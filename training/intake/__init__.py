"""Train the network that looks at a picture before it is read: is it an axial chest slice, and which way round?

It learns from phantoms, sketches and simulated scenes alone, so that the shipped network holds no patient's data.
"""
