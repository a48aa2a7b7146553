"""An organization's set-up as a folder of files: its form on disk, and going to and fro between it and the HTTP API."""
