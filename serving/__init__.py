"""The KServe predictor: audio in, latent factors and nearest songs out."""
