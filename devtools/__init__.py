"""What dev.py starts: the environment's set-up, the server and the demo. Not part of the pack."""
