"""Settings: nets, presets, training and the flags that set them."""
