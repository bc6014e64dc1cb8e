"""Many jobs: grouped into stacks, sent to processes and machines."""
