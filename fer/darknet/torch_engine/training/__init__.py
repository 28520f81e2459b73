"""Training the nets in torch by the programs' rules: batches, losses, schedules and one run."""
