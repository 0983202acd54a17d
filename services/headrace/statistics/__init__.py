"""Statistics of a stream, season by season: drift, quality and change of the loss. Pure: arrays in, numbers out."""
