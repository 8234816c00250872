"""What every fit shares: ranks, checkpoints, jobs and their launch."""
