"""What the recipes on text share: corpora, tokenizers, batches, models, scores."""
