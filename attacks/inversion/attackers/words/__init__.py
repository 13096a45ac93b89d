"""What attackers on text share: layers that read tokens, spans of embeddings, sentences."""
