"""What an upstream costs, what its layers hold, how long the official protocol takes."""
