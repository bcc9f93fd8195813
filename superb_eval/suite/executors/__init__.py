"""Where a suite's runs are executed: this machine, Ray, SLURM."""
