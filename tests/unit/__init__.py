"""Rules only: no server, no network, no clock but a given one."""
