"""Ablation: what switching units off does to accuracy, from pooled features."""
