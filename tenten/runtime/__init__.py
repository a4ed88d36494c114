"""Settings, errors, logs, failpoints, retries and prefetching, for every process."""
