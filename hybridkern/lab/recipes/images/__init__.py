"""What recipes on images share: official data files, translated and dequantized batches, Glow with a head, scores."""
