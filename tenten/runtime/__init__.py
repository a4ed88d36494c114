"""What every process needs: settings, errors, logs, failpoints, retrying, reading ahead."""
