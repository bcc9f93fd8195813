"""Pre-training and distillation: unlabelled audio in, an encoder in transformers' layout out."""
