"""What was published, against what the ledger says became of it and against what vendors have. Changes nothing."""
