"""What is said between edge, cloud and trainer: messages, topics, codec, labels, signing and trust rules."""
