"""The model: transformer layers, the two encoders, the query encoder and the moment head."""
