"""What samples say of what they were drawn from; knows arrays, and nothing of runs or stores."""
