"""Who learns: networks, data, training, evaluation and export."""
