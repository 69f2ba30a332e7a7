"""How good a network is, on slices of patients that it never saw, and whether it is better than another one.

Nothing here imports torch: a released network is one ONNX file, and it is judged as that.
"""
