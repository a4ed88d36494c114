-- Runs once, when the server's volume is new. The image creates headquarters' own database.
CREATE DATABASE houston;
