"""Files of every kind, damaged at random: each gives one clear line or the right value, never anything else."""
