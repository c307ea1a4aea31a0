"""Networks: image -> end points -> per-layer logits and localisations."""
