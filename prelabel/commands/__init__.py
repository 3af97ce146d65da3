"""The commands of `prelabel`: one file each with its options, its help and `execute`, which returns the exit status."""
