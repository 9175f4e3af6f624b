"""Audio -> factors: one model a file, one loop that trains, one bundle that travels."""
