"""What a training run leaves to be found again and compared by: run.json, the HPARAMS tab, tables of runs."""
