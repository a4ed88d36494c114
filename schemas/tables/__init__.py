"""The tables of headquarters' and of the channels' databases."""
