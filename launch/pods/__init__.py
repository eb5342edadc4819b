"""Programs that carry `launch.train` to clusters; --dry_run shows what each would run."""
