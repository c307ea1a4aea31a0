"""What a trained net becomes for those who run it."""
