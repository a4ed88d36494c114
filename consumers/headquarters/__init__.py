"""The customers worker and the transactions worker at headquarters, and the modules that they share."""
