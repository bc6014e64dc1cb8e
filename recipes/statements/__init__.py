"""What the paper's theory (section 3) says of an update, in numbers, and what holds where it does not."""
