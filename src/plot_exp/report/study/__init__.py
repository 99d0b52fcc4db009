"""Many runs as one study: grouped by settings, summarised over seeds, compared seed by seed."""
