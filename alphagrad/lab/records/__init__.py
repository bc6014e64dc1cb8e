"""What outlives the process: runs in the store and in their folders."""
