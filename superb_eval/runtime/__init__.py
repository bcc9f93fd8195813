"""What every program needs: files written whole, processes, threads, memory, progress, the environment."""
