"""One thin verb for each stage of dvc.yaml."""
