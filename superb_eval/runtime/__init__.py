"""What every package needs: atomic files, processes, threads, memory, progress, prefetch, the environment."""
