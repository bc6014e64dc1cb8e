"""A look at what a run trains: the α of its tensors, the loss around its weights, its policy at work."""
