"""The whole loop on one machine: two edges, worker, trainer, broker and S3 server, each a real process."""
