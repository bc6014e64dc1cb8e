"""The shape of a loss around the weights that training has found: slices, curvature, the worst nearby."""
