-- Run once, when the server's volume is new. Headquarters' own database is made by the image.
CREATE DATABASE houston;
