"""Programs that run `launch.train` on clusters; --dry_run prints the commands."""
