"""Many runs: plan and execute what is missing, skip what is finished."""
